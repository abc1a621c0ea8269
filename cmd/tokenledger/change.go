package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// keyFlag is the idempotency key of a command that changes something.
type keyFlag struct{ given string }

func (k *keyFlag) declare(flags *pflag.FlagSet) {
	flags.StringVar(&k.given, "idempotency-key", "",
		"key with which a repeated command takes effect only once (default a new key each time)")
	group(flags, groupSafety, "idempotency-key")
}

// key returns the key to send.
func (k *keyFlag) key() (string, error) {
	const most = 255
	if k.given == "" {
		return client.NewKey(), nil
	}
	if len(k.given) > most || strings.ContainsFunc(k.given, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", exit.Inputf("--idempotency-key: must be 1 to %d visible ASCII characters", most)
	}
	return k.given, nil
}

// versionFlags say which version of a thing a command changes.
type versionFlags struct {
	version uint64
	force   bool
}

func (v *versionFlags) declare(flags *pflag.FlagSet) {
	flags.Uint64Var(&v.version, "if-version", 0,
		"change it only if this is its version (default the version at the start of the command)")
	flags.BoolVar(&v.force, "force", false, "change it at any version, even if another command just changed it")
	group(flags, groupSafety, "if-version", "force")
}

// declareOnly is declare for a command that does not read the thing first.
func (v *versionFlags) declareOnly(flags *pflag.FlagSet) {
	flags.Uint64Var(&v.version, "if-version", 0, "do it only if this is its version (default any version)")
	group(flags, groupSafety, "if-version")
}

func (v *versionFlags) check() error {
	if v.version != 0 && v.force {
		return exit.Inputf("--if-version and --force cannot be used together")
	}
	return nil
}

// ifMatch returns the precondition to send. Seen is the version that was read, 0 if
// none was.
func (v *versionFlags) ifMatch(seen uint64) string {
	if v.version != 0 {
		seen = v.version
	}
	if v.force || seen == 0 {
		return ""
	}
	return `"` + strconv.FormatUint(seen, 10) + `"`
}

// replayed says that an earlier command with the same idempotency key made the
// change.
func (e *env) replayed(a *client.Answer) {
	if a.Replayed && a.Tries == 1 {
		e.Note("tokenledger: an earlier command with this idempotency key already made this change.")
	}
}

// scopeList splits lists at commas and checks the syntax of each scope. The ledger
// checks whether the permission exists.
func scopeList(what string, args []string) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, arg := range args {
		for s := range strings.SplitSeq(arg, ",") {
			if s = strings.TrimSpace(s); s == "" {
				continue
			}
			if _, err := events.ParseScope(s); err != nil {
				return nil, exit.Inputf("%s: %s", what, err)
			}
			if !seen[s] {
				seen[s] = true
				out = append(out, s)
			}
		}
	}
	return out, nil
}

// setGiven puts the fields that are not empty into a request's body.
func setGiven(body map[string]any, fields map[string]string) {
	for name, value := range fields {
		if value != "" {
			body[name] = value
		}
	}
}

// administers returns the first scope of a list with which a token could widen its
// own rights or those of others.
func administers(scopes []string) string {
	for _, s := range scopes {
		permission, _, _ := strings.Cut(s, ":")
		if permission == "admin" || permission == events.Superuser.Permission {
			return s
		}
	}
	return ""
}

// confirmScopes refuses scopes that administer, unless allowed.
func confirmScopes(allowed bool, scopes []string) error {
	if s := administers(scopes); s != "" && !allowed {
		return exit.Failf(exit.Usage, "needs_confirmation",
			"with %s the token could change the rights of others. To confirm, add --allow-admin", s)
	}
	return nil
}

// confirmInherit refuses a token that inherits scopes that administer, unless
// allowed.
func confirmInherit(ctx context.Context, c *client.Client, allowed bool, account string) error {
	if allowed {
		return nil
	}
	var a api.Account
	if err := c.Get(ctx, []string{"v1", "accounts", account}, &a); err != nil {
		return err
	}
	if s := administers(a.Grants); s != "" {
		return exit.Failf(
			exit.Usage,
			"needs_confirmation",
			"the account has %s and the token would inherit it, so it could change the rights of others. To confirm, add "+
				"--allow-admin",
			s,
		)
	}
	return nil
}

// accountNamed is accountName for commands that look names up.
func (*env) accountNamed(_ context.Context, arg string) (string, error) { return accountName(arg) }

// accountName checks an argument: an id or a login.
func accountName(arg string) (string, error) {
	switch arg {
	case "":
		return "", exit.Inputf("the account is empty; give its ID or login")
	case ".", "..": // a path's dots do not arrive
		return "", exit.Inputf("a login %s cannot be part of a URL; give the account's ID", arg)
	}
	return arg, nil
}
