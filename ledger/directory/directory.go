// Package directory keeps the personal data of accounts outside the log: logins,
// names and mail addresses. The log cannot forget, so data that must be erasable
// is not in it.
//
// Everything is in one bucket, [BucketName]. Package signin keeps credentials in
// the same bucket, under keys of its own.
//
//	login.<digest of the login in lower case>  Reservation
//	account.<id>                               Record
//	request-key                                random bytes, see [Directory.RequestKey]
//
// A login is reserved before the event that creates its account, so that two
// accounts never share one. A record is written before its account exists and
// afterwards only changed or removed, so erased data is never written again.
package directory

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// BucketName and BucketDescription are those of the bucket. The description is
// stored.
const (
	BucketName        = "DIRECTORY"
	BucketDescription = "logins of accounts, and what people prove to be theirs by; erasable"
)

// retryWait is the pause before a request to the bucket is sent again.
const retryWait = 100 * time.Millisecond

// Directory reads and writes the bucket. Every error that is not named is
// [errdefs.ErrUnavailable] or a record that cannot be decoded.
type Directory struct{ bucket *bucket.Bucket }

// Record is the personal data of an account.
type Record struct {
	Login string `json:"login"`
	Name  string `json:"name,omitempty"`
	Mail  string `json:"mail,omitempty"`
	// NameAt and MailAt are the positions of the events that set name and mail,
	// zero if they are unchanged since the account was created.
	NameAt events.Position `json:"name_at,omitempty"`
	MailAt events.Position `json:"mail_at,omitempty"`
}

// Open opens the directory. It creates the bucket if create is true, which is
// right only for a log without events. Otherwise a missing bucket is
// [bucket.ErrLost]: a new one would have another request key and no logins.
func Open(ctx context.Context, js jetstream.JetStream, replicas int, create bool) (*Directory, error) {
	open := bucket.Load
	if create {
		open = bucket.Create
	}
	b, err := open(ctx, js, bucket.Config{Name: BucketName, Description: BucketDescription, Replicas: replicas})
	if err != nil {
		return nil, fmt.Errorf("open the directory of logins: %w", err)
	}
	return &Directory{bucket: b}, nil
}

// Reservation assigns a login to an account.
type Reservation struct {
	Account events.AccountID  `json:"account"`
	Key     events.CommandKey `json:"key,omitempty"` // of the command that reserved the login
}

// Reserve reserves a login. It returns the reservation in force: r, or the one
// that was there before.
func (d *Directory) Reserve(ctx context.Context, login string, r Reservation) (Reservation, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	for {
		_, err := d.bucket.Put(ctx, loginKey(login), b, 0)
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, bucket.ErrChanged) {
			return r, errdefs.Unavailable(err)
		}
		// The login can be free all the same: it was released in between, or its
		// reservation is still being replicated and cannot be read yet.
		held, err := d.Lookup(ctx, login)
		if !errors.Is(err, errdefs.ErrNotFound) {
			return held, err
		}
		if !clock.Sleep(ctx, retryWait) {
			return r, errdefs.Unavailable(ctx.Err())
		}
	}
}

// Describe writes the record of an account that is about to be created. It calls
// vacant after it has read the old record, writes nothing if vacant returns an
// error, and returns that error. A record that changes after the call of vacant
// is not overwritten.
func (d *Directory) Describe(ctx context.Context, id events.AccountID, r Record, vacant func() error) error {
	_, err := d.change(ctx, id, func(old *Record, _ bool) error {
		*old = r
		return vacant()
	})
	return err
}

// ErrNoRecord reports an account without a record: it was erased, or the
// directory belongs to another log.
var ErrNoRecord = errors.New("the directory has no record of the account")

// Edit sets name and mail, except those that are nil or that an event after the
// position at has set. It returns the record, or [ErrNoRecord].
func (d *Directory) Edit(
	ctx context.Context,
	id events.AccountID,
	at events.Position,
	name, mail *string,
) (Record, error) {
	return d.change(ctx, id, func(r *Record, found bool) error {
		if !found {
			return ErrNoRecord
		}
		if name != nil && at > r.NameAt {
			r.Name, r.NameAt = *name, at
		}
		if mail != nil && at > r.MailAt {
			r.Mail, r.MailAt = *mail, at
		}
		return nil
	})
}

// change lets f change an account's record and writes the result. If f returns
// an error, nothing is written. If the record changed or was removed in between,
// f is called again.
func (d *Directory) change(
	ctx context.Context,
	id events.AccountID,
	f func(r *Record, found bool) error,
) (Record, error) {
	for {
		var old Record
		e, err := d.bucket.Get(ctx, accountKey(id))
		found := err == nil
		if err != nil && !errors.Is(err, bucket.ErrNotFound) {
			return old, errdefs.Unavailable(err)
		}
		if found {
			if err := json.Unmarshal(e.Value, &old); err != nil {
				return old, fmt.Errorf("read the directory's record of %s: %w", id, err)
			}
		}
		r := old
		if err := f(&r, found); err != nil || found && r == old {
			return r, err
		}
		b, err := json.Marshal(r)
		if err != nil {
			return r, err
		}
		// After an error with an unknown outcome the write may still happen, but on
		// the same condition.
		_, err = d.bucket.Put(ctx, accountKey(id), b, e.Revision)
		if errors.Is(err, bucket.ErrChanged) {
			continue
		}
		if err != nil {
			return r, errdefs.Unavailable(err)
		}
		return r, nil
	}
}

// Lookup returns the reservation of a login, or [errdefs.ErrNotFound]. It asks
// the bucket's leader exactly once: a follower may not have the login yet, and a
// second request only for missing logins would reveal by its time which logins
// exist.
func (d *Directory) Lookup(ctx context.Context, login string) (Reservation, error) {
	var r Reservation
	e, err := d.bucket.Get(ctx, loginKey(login))
	if errors.Is(err, bucket.ErrNotFound) {
		// The same work as for a login that exists.
		_ = json.Unmarshal([]byte(dummyReservation), &r)
		return Reservation{}, errdefs.NotFound("no account with login %q", login)
	}
	if err != nil {
		return r, errdefs.Unavailable(err)
	}
	return r, json.Unmarshal(e.Value, &r)
}

// dummyReservation is decoded if there is no reservation.
const dummyReservation = `{"account":"acc_00000000000000000000000000","key":"00000000000000000000000000000000"}`

// Get returns an account's record, the zero Record if it has none.
func (d *Directory) Get(ctx context.Context, id events.AccountID) (Record, error) {
	var r Record
	e, err := d.bucket.Get(ctx, accountKey(id))
	if errors.Is(err, bucket.ErrNotFound) {
		return r, nil
	}
	if err != nil {
		return r, errdefs.Unavailable(err)
	}
	return r, json.Unmarshal(e.Value, &r)
}

// Erase deletes an account's record and releases its login. It can be repeated.
func (d *Directory) Erase(ctx context.Context, id events.AccountID) error {
	r, err := d.Get(ctx, id)
	if err != nil {
		return err
	}
	if r.Login != "" {
		switch held, err := d.Lookup(ctx, r.Login); {
		case err == nil && held.Account == id:
			if err := d.bucket.Remove(ctx, loginKey(r.Login)); err != nil {
				return err
			}
		case err != nil && !errors.Is(err, errdefs.ErrNotFound):
			return err
		}
	}
	return d.bucket.Remove(ctx, accountKey(id))
}

// RequestKey returns the key of the hashes of requests. It creates one if create
// is true, which is right only for a log without events. It retries until ctx
// ends, since a new bucket may have no leader yet.
func (d *Directory) RequestKey(ctx context.Context, create bool) ([]byte, error) {
	for {
		key, err := d.tryRequestKey(ctx, create)
		if err == nil || errors.Is(err, bucket.ErrLost) {
			return key, err
		}
		if !clock.Sleep(ctx, retryWait) {
			return nil, errdefs.Unavailable(err)
		}
	}
}

// tryRequestKey returns [bucket.ErrChanged] if another ledger created the key
// first.
func (d *Directory) tryRequestKey(ctx context.Context, create bool) ([]byte, error) {
	const name = "request-key"
	e, err := d.bucket.Get(ctx, name)
	switch {
	case !errors.Is(err, bucket.ErrNotFound):
		return e.Value, err
	case !create:
		return nil, fmt.Errorf(
			"%w: the log has events, but bucket %s has no record %s; nothing was created in its place: "+
				"stop all ledgers and restore the folder of stream KV_%s from a backup",
			bucket.ErrLost,
			BucketName,
			name,
			BucketName,
		)
	}
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails
	_, err = d.bucket.Put(ctx, name, key, 0)
	return key, err
}

// loginKey does not contain the login: keys are subjects, which can be listed.
func loginKey(login string) string {
	sum := sha256.Sum256([]byte(Fold(login)))
	return "login." + hex.EncodeToString(sum[:])
}

func accountKey(id events.AccountID) string { return "account." + string(id) }

// Fold returns the form in which logins are compared: two logins with the same form
// are one. It is that of Matomo's database, whose collations ignore case and the
// dots of letters, and take the sharp s for two s.
func Fold(login string) string { return umlauts.Replace(strings.ToLower(login)) }

// umlauts maps the letters outside ASCII that a login may have.
var umlauts = strings.NewReplacer("ä", "a", "ö", "o", "ü", "u", "ß", "ss", "ẞ", "ss")

// CheckLogin returns what is wrong with a login, as an [errdefs.FieldError]. Those
// that Matomo allows are allowed: ASCII, and the letters that Fold maps to it. So two
// logins that look the same are the same.
func CheckLogin(login string) error {
	const maxLogin = 100
	switch n := utf8.RuneCountInString(login); {
	case login == "":
		return errdefs.Invalid("login", "is required")
	case n > maxLogin:
		return errdefs.Invalid("login", "has %d characters; the maximum is %d", n, maxLogin)
	case events.LooksSecret(login):
		return errdefs.Invalid("login", "holds a secret; treat it as leaked if others saw it")
	case login == "." || login == "..":
		return errdefs.Invalid("login", "cannot be used in a path")
	case strings.HasPrefix(login, "acc_") || strings.HasPrefix(login, "tok_"):
		return errdefs.Invalid("login", "starts like an id")
	}
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäöüßÄÖÜ0123456789._-+@"
	for _, c := range login {
		if c == utf8.RuneError || !strings.ContainsRune(allowed, c) {
			return errdefs.Invalid("login", "may contain only ASCII letters, ä ö ü ß, digits and . _ - + @")
		}
	}
	return nil
}
