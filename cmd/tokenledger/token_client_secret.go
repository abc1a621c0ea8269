package main

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// clientSecret is a secret that does not come from the ledger. The ledger gets
// only its digest, so a lost answer loses no secret.
type clientSecret struct {
	from   string // secretNew or secretRead; empty if the ledger generates it
	secret events.Secret
}

const (
	secretNew  = "new"
	secretRead = "-"
)

func (o *clientSecret) declare(flags *pflag.FlagSet) {
	flags.StringVar(&o.from, "client-secret", "",
		"generate the secret here and send only its digest; --client-secret=- reads it from standard input")
	flags.Lookup("client-secret").NoOptDefVal = secretNew
	group(flags, groupSecret, "client-secret")
}

// check reports what is wrong with the flags.
func (o *clientSecret) check(e *env, hex32 bool, out secretOutput) error {
	switch {
	case o.from != "" && o.from != secretNew && o.from != secretRead:
		return exit.Inputf("--client-secret takes no value except -, for standard input; secrets cannot be given as " +
			"arguments")
	case o.from != "" && hex32:
		return exit.Inputf("--client-secret and --hex32 cannot be used together")
	case o.from == secretRead && (out.only || out.file.given()):
		return exit.Inputf("--secret-only and --secret-file are for a generated secret, and with --client-secret=- none is " +
			"generated")
	case o.from == secretRead && e.tokenFile == "-":
		return exit.Inputf("--client-secret=- and --token-file - both read standard input; give your token in a file")
	}
	return nil
}

// take generates or reads the secret and returns its digest. An empty account is
// the caller's own.
func (o *clientSecret) take(ctx context.Context, e *env, c *client.Client, account string) (digest string, err error) {
	format, known := secretFormat(c)
	if o.from == secretRead {
		text, err := client.ReadSecret(ctx, e.input)
		if err != nil {
			return "", err
		}
		given, err := formatOf(text)
		switch {
		case err != nil:
			return "", exit.Inputf(
				"standard input holds no secret in the ledger's format: %s or %s, 32 characters of 0-9, "+
					"A-Z and a-z, and a checksum of 6. Use --client-secret without a value to generate "+
					"one",
				format.User,
				format.Service,
			)
		case known && given != format:
			return "", exit.Inputf(
				"the ledger's secrets begin with %s or %s, and the one on standard input does not, so it "+
					"would never work",
				format.User,
				format.Service,
			)
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

// secretFormat returns the format of the ledger's secrets: that of the caller's own
// token, or the default if that token has none.
func secretFormat(c *client.Client) (f events.Format, known bool) {
	if f, err := formatOf(c.Secret()); err == nil {
		return f, true
	}
	return events.DefaultFormat, false
}

// formatOf returns the format that a secret with prefix and checksum has.
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

// accountKind returns the kind of an account, for the prefix of its secret. Both
// prefixes work.
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

// tokenRequest is a request to create a token.
type tokenRequest struct {
	client.Request
	body    map[string]any
	account string // empty for the caller's own
	out     secretOutput
}

// create creates a token with the secret and prints the result, with the secret
// if it was generated here.
func (o *clientSecret) create(ctx context.Context, e *env, c *client.Client, r tokenRequest) error {
	digest, err := o.take(ctx, e, c, r.account)
	if err != nil {
		return err
	}
	r.body["secret_digest"] = digest
	file := r.out.file
	if file.given() {
		if err := file.write(o.secret.Reveal()); err != nil {
			return exit.Inputf("cannot write the secret to %s: %s. Nothing was done", file.path, exit.Cause(err, file.path))
		}
	}
	a, err := c.Do(ctx, r.Request)
	var f *exit.Failure
	unknown := errors.As(err, &f) && f.Key != "" // the token may exist
	file.kept = file.kept && (err == nil || unknown)
	switch {
	case unknown && file.given():
		f.Text += ". The generated secret is in " + file.path + ". To repeat the command, give it that secret on standard " +
			"input, with --client-secret=- in place of --secret-file"
		return f
	case unknown && o.from == secretNew:
		if r.out.only || e.Format.Tabular() {
			err = e.Print([]byte(o.secret.Reveal()), "\n")
		} else {
			err = e.Show(withSecret([]byte(`{}`), o.secret), nil)
		}
		if err == nil {
			f.Text += ". The generated secret is on standard output. " +
				"To repeat the command, give it that secret on standard input, with --client-secret=-"
		}
		return f
	case err != nil:
		return err
	case o.from == secretRead:
		return e.changed(a, "created", nil)
	}
	a.Body = withSecret(a.Body, o.secret)
	return e.secret(a, "created", r.out)
}

// withSecret adds the secret to an answer, as if the ledger had generated it, and
// keeps the rest as it came.
func withSecret(body []byte, s events.Secret) []byte {
	rest := strings.TrimPrefix(strings.TrimSpace(string(body)), "{")
	if rest != "}" {
		rest = "," + rest
	}
	return []byte(`{"secret":"` + s.Reveal() + `"` + rest)
}
