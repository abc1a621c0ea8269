package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
)

// directoryBucket holds what can be erased: the names of people.
const directoryBucket = "DIRECTORY"

// directory keeps the logins of accounts, apart from the log, which cannot
// forget.
//
//	login.<digest of the login in lower case> -> reservation
//	account.<id>                              -> person
type directory struct {
	kv   jetstream.KeyValue
	conn *nats.Conn
}

// person is what the directory knows of an account.
type person struct {
	Login string `json:"login"`
}

func openDirectory(ctx context.Context, js jetstream.JetStream, replicas int) (*directory, error) {
	for {
		kv, err := tryDirectory(ctx, js, max(1, replicas))
		if err == nil {
			return &directory{kv: kv, conn: js.Conn()}, nil
		}
		// Of several ledgers that make it at once, the server leaves some without
		// an answer, as it does while a replicated log has no leader.
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, jetstream.ErrBucketExists) {
			return nil, fmt.Errorf("open the directory of logins: %w", err)
		}
	}
}

func tryDirectory(ctx context.Context, js jetstream.JetStream, replicas int) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, directoryTry)
	defer cancel()
	kv, err := js.KeyValue(ctx, directoryBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: directoryBucket, Description: "logins of accounts; erasable",
			History: 1, Storage: jetstream.FileStorage, Replicas: replicas,
		})
	}
	return kv, err
}

// directoryTry is how long one try to open the directory may take.
const directoryTry = 2 * time.Second

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
	_, err = d.kv.Create(ctx, loginKey(login), b)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return d.holder(ctx, login)
	}
	if err != nil {
		return r, unavailable(err)
	}
	return r, nil
}

// describe records what is known of an account.
func (d *directory) describe(ctx context.Context, id events.AccountID, p person) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if _, err := d.kv.Put(ctx, accountKey(id), b); err != nil {
		return unavailable(err)
	}
	return nil
}

// holder returns who has a login.
func (d *directory) holder(ctx context.Context, login string) (reservation, error) {
	var r reservation
	b, err := d.get(ctx, loginKey(login))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return r, fmt.Errorf("account with this login: %w", ErrNotFound)
	}
	if err != nil {
		return r, unavailable(err)
	}
	return r, json.Unmarshal(b, &r)
}

// person returns what is known of an account, nothing where it was erased.
func (d *directory) person(ctx context.Context, id events.AccountID) (person, error) {
	var p person
	b, err := d.get(ctx, accountKey(id))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return p, nil
	}
	if err != nil {
		return p, unavailable(err)
	}
	return p, json.Unmarshal(b, &p)
}

// get reads a key, [jetstream.ErrKeyNotFound] where there is none. A copy that
// lags may not have it yet, so that is the leader's to say.
func (d *directory) get(ctx context.Context, key string) ([]byte, error) {
	e, err := d.kv.Get(ctx, key)
	if err == nil {
		return e.Value(), nil
	}
	if !errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, err
	}
	question, err := json.Marshal(map[string]string{"last_by_subj": "$KV." + directoryBucket + "." + key})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, directoryTry)
	defer cancel()
	m, err := d.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+directoryBucket, question)
	if err != nil {
		return nil, fmt.Errorf("ask for a login or an account's description: %w", err)
	}
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Header []byte `json:"hdrs"` // of a deletion alone
			Data   []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &got); err != nil {
		return nil, err
	}
	const noMessage = 10037 // JSNoMessageFoundErr, for which the client has no name
	switch {
	case got.Error != nil && got.Error.ErrorCode == noMessage, bytes.Contains(got.Message.Header, []byte("KV-Operation")):
		return nil, jetstream.ErrKeyNotFound
	case got.Error != nil:
		return nil, got.Error
	}
	return got.Message.Data, nil
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
		return invalid("login", "is required")
	case len(login) > most:
		return invalid("login", "is %d bytes long, and %d are the most", len(login), most)
	case events.LooksSecret(login):
		return invalid("login", "holds a secret; treat it as leaked if others saw it")
	case login == "." || login == "..":
		return invalid("login", "cannot stand in a path")
	case strings.HasPrefix(login, "acc_") || strings.HasPrefix(login, "tok_"):
		return invalid("login", "begins like an id")
	}
	for _, c := range []byte(login) {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@", rune(c)) {
			return invalid("login", "may hold letters and digits of ASCII and . _ - + @")
		}
	}
	return nil
}
