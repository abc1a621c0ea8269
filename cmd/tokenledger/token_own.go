package main

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// ownSecret is a secret that does not come from the ledger, which gets a digest
// of it alone: an answer that is lost loses no secret then.
type ownSecret struct {
	from   string // ownNew or ownRead; empty where the ledger makes it
	secret events.Secret
}

const (
	ownNew  = "new"
	ownRead = "-"
)

func (o *ownSecret) declare(flags *pflag.FlagSet) {
	flags.StringVar(&o.from, "own-secret", "", "make the secret here and send a digest of it alone; with --own-secret=- read it from standard input")
	flags.Lookup("own-secret").NoOptDefVal = ownNew
}

// check reports what is wrong with the flags.
func (o *ownSecret) check(e *env, hex32, only bool) error {
	switch {
	case o.from != "" && o.from != ownNew && o.from != ownRead:
		return exit.Inputf("--own-secret takes no value but -, for standard input; a secret is not given as an argument")
	case o.from != "" && hex32:
		return exit.Inputf("--own-secret and --hex32 contradict each other")
	case o.from == ownRead && only:
		return exit.Inputf("--secret-only prints a secret that is made; with --own-secret=- there is none")
	case o.from == ownRead && e.tokenFile == "-":
		return exit.Inputf("--own-secret=- and --token-file - both read standard input; name a file for your token")
	}
	return nil
}

// take makes or reads the secret, for an account or the caller's own where that
// is empty, and returns its digest.
func (o *ownSecret) take(ctx context.Context, e *env, c *client.Client, account string) (digest string, err error) {
	format, known := secretFormat(c)
	if o.from == ownRead {
		text, err := client.ReadSecret(ctx, e.input)
		if err != nil {
			return "", err
		}
		given, err := formatOf(text)
		switch {
		case err != nil:
			return "", exit.Inputf("standard input holds no secret of the ledger's form: %s or %s, 32 characters of 0-9, A-Z and a-z, and 6 of checksum. --own-secret without a value makes one", format.User, format.Service)
		case known && given != format:
			return "", exit.Inputf("the ledger's secrets begin with %s or %s, and the one on standard input does not; it would never work", format.User, format.Service)
		}
		o.secret, err = given.ParseSecret(text)
		if err != nil {
			return "", exit.Inputf("standard input: %s", err)
		}
	} else {
		o.secret = format.NewSecret(accountKind(ctx, e, c, format, account))
	}
	d := o.secret.Digest()
	return hex.EncodeToString(d[:]), nil
}

// format returns the form of the ledger's secrets, by the caller's own token; the
// usual one where that does not tell.
func secretFormat(c *client.Client) (f events.Format, known bool) {
	if f, err := formatOf(c.Secret()); err == nil {
		return f, true
	}
	return events.DefaultFormat, false
}

// formatOf returns the form that a secret has, with its prefix and checksum.
func formatOf(secret string) (events.Format, error) {
	prefix, _, found := strings.Cut(secret, "_")
	if !found || prefix == "" {
		return events.Format{}, events.ErrBadSecret
	}
	f, err := events.NewFormat(prefix[:len(prefix)-1])
	if err != nil || !f.Shape(secret) {
		return events.Format{}, events.ErrBadSecret
	}
	return f, nil
}

// kind returns whether an account is a user's, for the prefix alone: both work.
func accountKind(ctx context.Context, e *env, c *client.Client, f events.Format, account string) events.AccountKind {
	if account == "" {
		if strings.HasPrefix(c.Secret(), f.Service) {
			return events.ServiceAccount
		}
		return events.UserAccount
	}
	var a api.Account
	a.Kind = string(events.UserAccount)
	if err := c.Get(ctx, []string{"v1", "accounts", account}, &a); err != nil {
		e.trace("the account cannot be looked at, so the secret gets the prefix of a user's: %s", exit.Text(err))
	}
	return events.AccountKind(a.Kind)
}

// create sends a request for a token with the secret, and prints what became of
// it. The secret is printed where it was made here.
func (o *ownSecret) create(ctx context.Context, e *env, c *client.Client, body map[string]any, account, key string, only bool) error {
	digest, err := o.take(ctx, e, c, account)
	if err != nil {
		return err
	}
	body["secret_digest"] = digest
	a, err := c.Do(ctx, client.Request{Method: http.MethodPost, Path: []string{"v1", "tokens"}, Body: body, Key: key})
	var f *exit.Failure
	switch {
	case errors.As(err, &f) && f.Key != "" && o.from == ownNew:
		// The token may be there.
		if only || e.Format == render.Table {
			err = e.Print([]byte(o.secret.Reveal()), "\n")
		} else {
			err = e.Show(withSecret([]byte(`{}`), o.secret), nil)
		}
		if err == nil {
			f.Text += ". The secret that was made stands on standard output; give it to the same command on standard input, with --own-secret=-"
		}
		return f
	case err != nil:
		return err
	case o.from == ownRead:
		return e.changed(a, "made", nil)
	}
	a.Body = withSecret(a.Body, o.secret)
	return e.secret(a, "made", only)
}

// withSecret adds the secret to an answer, as if the ledger had made it. What else
// is there stays as it came.
func withSecret(body []byte, s events.Secret) []byte {
	rest := strings.TrimPrefix(strings.TrimSpace(string(body)), "{")
	if rest != "}" {
		rest = "," + rest
	}
	return []byte(`{"secret":"` + s.Reveal() + `"` + rest)
}
