package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// DirectoryBucket holds what can be erased: the names of people, and what package
// signin keeps of them.
const (
	DirectoryBucket      = "DIRECTORY"
	DirectoryDescription = "logins of accounts, and what people prove to be theirs by; erasable"
)

// directory keeps the logins of accounts, apart from the log, which cannot
// forget.
//
//	login.<digest of the login in lower case> -> reservation
//	account.<id>                              -> person
//	request-key                               -> random bytes, see requestKey
type directory struct{ bucket *bucket.Bucket }

// person is what the directory knows of an account. A record is made before the
// account is, and only changed from then on until it is removed: what was erased
// is not written again.
type person struct {
	Login string `json:"login"`
	Name  string `json:"name,omitempty"`
	Mail  string `json:"mail,omitempty"`
	// Positions of the events that name and mail are from, zero where they are as
	// the account was made with.
	NameAt events.Position `json:"name_at,omitempty"`
	MailAt events.Position `json:"mail_at,omitempty"`
}

// openDirectory opens the directory. Only a log without events has none yet,
// which is then created. A directory that was lost is [bucket.ErrLost]: a new one
// would have another request key and no logins.
func openDirectory(ctx context.Context, js jetstream.JetStream, replicas int, begin bool) (*directory, error) {
	open := bucket.Load
	if begin {
		open = bucket.Create
	}
	b, err := open(ctx, js, bucket.Config{Name: DirectoryBucket, Description: DirectoryDescription, Replicas: replicas})
	if err != nil {
		return nil, fmt.Errorf("open the directory of logins: %w", err)
	}
	return &directory{bucket: b}, nil
}

// reservation says who has a login.
type reservation struct {
	Account events.AccountID  `json:"account"`
	Key     events.CommandKey `json:"key,omitempty"` // of the command that reserved it
}

// reserve takes a login, and returns who has it: r, or whoever came before.
func (d *directory) reserve(ctx context.Context, login string, r reservation) (reservation, error) {
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
		// Nobody may have it all the same: it was let go in between, or it is on its
		// way to the log's copies, where nobody can read it yet.
		held, err := d.holder(ctx, login)
		if !errors.Is(err, ErrNotFound) {
			return held, err
		}
		if !clock.Sleep(ctx, settleWait) {
			return r, errdefs.Unavailable(ctx.Err())
		}
	}
}

// describe records what is known of an account that is about to be made. It
// leaves all as it is, and returns the error, where made returns one. A record
// that changes after made was asked is not written over.
func (d *directory) describe(ctx context.Context, id events.AccountID, p person, made func() error) error {
	_, err := d.change(ctx, id, func(was *person, _ bool) error {
		*was = p
		return made()
	})
	return err
}

// errNoRecord reports an account that the directory knows nothing of: it was
// erased, or the directory is not the log's.
var errNoRecord = errors.New("the directory has no record of the account")

// edit puts those of name and mail that are not nil in the place of what is from
// an earlier event than theirs, at a position. It returns what the directory
// knows then, or errNoRecord.
func (d *directory) edit(ctx context.Context, id events.AccountID, at events.Position, name, mail *string) (person, error) {
	return d.change(ctx, id, func(p *person, found bool) error {
		if !found {
			return errNoRecord
		}
		if name != nil && at > p.NameAt {
			p.Name, p.NameAt = *name, at
		}
		if mail != nil && at > p.MailAt {
			p.Mail, p.MailAt = *mail, at
		}
		return nil
	})
}

// change writes what f makes of an account's record, nothing where f returns an
// error. Where the record changed meanwhile, or went, f is asked again.
func (d *directory) change(ctx context.Context, id events.AccountID, f func(p *person, found bool) error) (person, error) {
	for {
		var was person
		e, err := d.bucket.Get(ctx, accountKey(id))
		found := err == nil
		if err != nil && !errors.Is(err, bucket.ErrNotFound) {
			return was, errdefs.Unavailable(err)
		}
		if found {
			if err := json.Unmarshal(e.Value, &was); err != nil {
				return was, fmt.Errorf("read the directory's record of %s: %w", id, err)
			}
		}
		p := was
		if err := f(&p, found); err != nil || found && p == was {
			return p, err
		}
		b, err := json.Marshal(p)
		if err != nil {
			return p, err
		}
		// After an error that leaves it open whether the record was written, the
		// write may still come: on the same condition.
		_, err = d.bucket.Put(ctx, accountKey(id), b, e.Revision)
		if errors.Is(err, bucket.ErrChanged) {
			continue
		}
		if err != nil {
			return p, errdefs.Unavailable(err)
		}
		return p, nil
	}
}

// holder returns who has a login. It always asks the bucket's leader, once: a copy
// may not have the login yet, and to ask a second time only for logins that a copy
// does not have would tell by the time that it takes which logins there are.
func (d *directory) holder(ctx context.Context, login string) (reservation, error) {
	var r reservation
	e, err := d.bucket.Get(ctx, loginKey(login))
	if errors.Is(err, bucket.ErrNotFound) {
		// As much work as below, for nobody.
		_ = json.Unmarshal([]byte(noReservation), &r)
		return reservation{}, fmt.Errorf("account with this login: %w", ErrNotFound)
	}
	if err != nil {
		return r, errdefs.Unavailable(err)
	}
	return r, json.Unmarshal(e.Value, &r)
}

// noReservation is read where there is no reservation.
const noReservation = `{"account":"acc_00000000000000000000000000","key":"00000000000000000000000000000000"}`

// person returns what is known of an account, nothing where it was erased.
func (d *directory) person(ctx context.Context, id events.AccountID) (person, error) {
	var p person
	e, err := d.bucket.Get(ctx, accountKey(id))
	if errors.Is(err, bucket.ErrNotFound) {
		return p, nil
	}
	if err != nil {
		return p, errdefs.Unavailable(err)
	}
	return p, json.Unmarshal(e.Value, &p)
}

// erase deletes what is known of an account. Its login may be another's then.
func (d *directory) erase(ctx context.Context, id events.AccountID) error {
	p, err := d.person(ctx, id)
	if err != nil {
		return err
	}
	if p.Login != "" {
		switch held, err := d.holder(ctx, p.Login); {
		case err == nil && held.Account == id:
			if err := d.bucket.Remove(ctx, loginKey(p.Login)); err != nil {
				return err
			}
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		}
	}
	return d.bucket.Remove(ctx, accountKey(id))
}

// requestKey returns the key of the hashes of requests. At the beginning of a log
// it creates one. A bucket that was created a moment ago may have no leader yet.
func (d *directory) requestKey(ctx context.Context, begin bool) ([]byte, error) {
	for {
		key, err := d.tryRequestKey(ctx, begin)
		if err == nil || errors.Is(err, bucket.ErrLost) {
			return key, err
		}
		if !clock.Sleep(ctx, settleWait) {
			return nil, errdefs.Unavailable(err)
		}
	}
}

// tryRequestKey returns [bucket.ErrChanged] if another ledger was faster.
func (d *directory) tryRequestKey(ctx context.Context, begin bool) ([]byte, error) {
	const name = "request-key"
	e, err := d.bucket.Get(ctx, name)
	switch {
	case !errors.Is(err, bucket.ErrNotFound):
		return e.Value, err
	case !begin:
		return nil, fmt.Errorf("%w: the log has events, and bucket %s has no record %s; nothing was created in its place: "+
			"stop all ledgers and restore the folder of stream KV_%s from a backup", bucket.ErrLost, DirectoryBucket, name, DirectoryBucket)
	}
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails
	_, err = d.bucket.Put(ctx, name, key, 0)
	return key, err
}

// loginKey does not contain the login: keys are subjects, and may be listed.
func loginKey(login string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(login)))
	return "login." + hex.EncodeToString(sum[:])
}

func accountKey(id events.AccountID) string { return "account." + string(id) }

// checkLogin reports what is wrong with a login. Only ASCII is taken, so that
// two logins that look the same are the same.
func checkLogin(login string) error {
	const most = 100
	switch {
	case login == "":
		return errdefs.Invalid("login", "is required")
	case len(login) > most:
		return errdefs.Invalid("login", "is %d bytes long, and %d are the most", len(login), most)
	case events.LooksSecret(login):
		return errdefs.Invalid("login", "holds a secret; treat it as leaked if others saw it")
	case login == "." || login == "..":
		return errdefs.Invalid("login", "cannot stand in a path")
	case strings.HasPrefix(login, "acc_") || strings.HasPrefix(login, "tok_"):
		return errdefs.Invalid("login", "begins like an id")
	}
	for _, c := range []byte(login) {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@", rune(c)) {
			return errdefs.Invalid("login", "may hold letters and digits of ASCII and . _ - + @")
		}
	}
	return nil
}
