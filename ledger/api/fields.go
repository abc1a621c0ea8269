package api

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/directory"
)

// fields collects what is wrong with the fields of a request, so that one answer
// has all of it. The ledger checks each field again, and what depends on its state.
type fields struct {
	model *events.Model
	list  []error
}

func fieldsOf(ctx huma.Context) *fields {
	model, _ := ctx.Context().Value(modelKey).(*events.Model)
	return &fields{model: model}
}

func (f *fields) add(location string, err error) {
	var field *ledger.FieldError
	message := ""
	switch {
	case err == nil:
		return
	case errors.As(err, &field):
		message = field.Problem
	default:
		message = strings.TrimPrefix(err.Error(), events.ErrBadScope.Error()+" ")
	}
	f.list = append(f.list, &huma.ErrorDetail{Location: location, Message: message})
}

// change adds each thing that is wrong with an event of the request's values.
func (f *fields) change(location string, c events.Change) {
	err := events.Check(c)
	if err == nil {
		return
	}
	name := location[strings.LastIndex(location, ".")+1:]
	for line := range strings.SplitSeq(err.Error(), "\n") {
		f.add(location, errors.New(strings.TrimPrefix(line, name+" ")))
	}
}

// maxBadScopes is how many scopes of a list are named.
const maxBadScopes = 16

func (f *fields) scopes(location string, list []string) {
	bad := 0
	for i, text := range list {
		s, err := events.ParseScope(text)
		if err == nil && f.model != nil {
			err = f.model.Check(s)
		}
		if err == nil {
			continue
		}
		if bad++; bad <= maxBadScopes {
			f.add(fmt.Sprintf("%s[%d]", location, i), err)
		}
	}
	if bad > maxBadScopes {
		f.add(location, fmt.Errorf("and %d more bad scopes", bad-maxBadScopes))
	}
}

func (f *fields) constraints(c *Constraints) {
	if c == nil {
		return
	}
	networks := c.CIDRs
	rest := *c
	rest.CIDRs, rest.Origins = nil, nil
	for i, s := range c.Origins {
		f.add(fmt.Sprintf("body.constraints.origins[%d]", i), events.CheckSentOrigin(s))
	}
	for i, s := range networks {
		if _, err := netip.ParsePrefix(s); err != nil {
			f.add(fmt.Sprintf("body.constraints.cidrs[%d]", i), badNetwork(s))
			continue
		}
		rest.CIDRs = append(rest.CIDRs, s)
	}
	if parsed, err := rest.parse(); err == nil {
		f.change("body.constraints", &events.TokenEdited{Constraints: parsed})
	}
}

func (f *fields) labels(app, device *string) {
	f.change("body.app", &events.TokenEdited{App: app})
	f.change("body.device", &events.TokenEdited{Device: device})
}

// Resolve implements [huma.Resolver].
func (in *createTokenInput) Resolve(ctx huma.Context) []error {
	f, b := fieldsOf(ctx), &in.Body
	f.labels(&b.App, &b.Device)
	f.scopes("body.scopes", b.Scopes)
	switch {
	case b.Inherit && len(b.Scopes) > 0:
		f.add("body.inherit", errors.New("means all grants of the account; omit scopes"))
	case !b.Inherit && len(b.Scopes) == 0:
		f.add("body.scopes", errors.New("is empty, so the token could do nothing; give scopes or set inherit"))
	}
	f.constraints(b.Constraints)
	_, err := parseDigest(b.Digest)
	f.add("body.secret_digest", err)
	if b.Digest != "" && b.Format != "" {
		f.add("body.format", errors.New("applies only to secrets that the ledger makes; omit it with secret_digest"))
	}
	return f.list
}

// Resolve implements [huma.Resolver].
func (in *editTokenInput) Resolve(ctx huma.Context) []error {
	f, b := fieldsOf(ctx), &in.Body
	f.labels(b.App, b.Device)
	if b.Scopes != nil {
		f.scopes("body.scopes", *b.Scopes)
	}
	f.constraints(b.Constraints)
	return f.list
}

// Resolve implements [huma.Resolver].
func (in *createAccountInput) Resolve(ctx huma.Context) []error {
	f, b := fieldsOf(ctx), &in.Body
	if b.Login != "" {
		f.add("body.login", directory.CheckLogin(b.Login))
	}
	kind := events.AccountKind(b.Kind)
	f.add("body.name", ledger.Person{Name: b.Name}.Check(kind))
	f.add("body.mail", ledger.Person{Mail: b.Mail}.Check(kind))
	f.scopes("body.grants", b.Grants)
	if b.Owner != "" && b.Kind == string(events.UserAccount) {
		f.add("body.owner", errors.New("applies only to service accounts; a user has none"))
	}
	return f.list
}

// Resolve implements [huma.Resolver].
func (in *grantInput) Resolve(ctx huma.Context) []error {
	f := fieldsOf(ctx)
	f.scopes("body.grants", in.Body.Grants)
	return f.list
}

// Resolve implements [huma.Resolver].
func (in *mayInput) Resolve(ctx huma.Context) []error {
	f := fieldsOf(ctx)
	f.scopes("body.scopes", in.Body.Scopes)
	return f.list
}

// badNetwork returns what is wrong with a network.
func badNetwork(s string) error {
	return errors.New(events.Quote(s) + " is not a network such as 192.0.2.0/24")
}

// withModel lets resolvers check scopes against the ledger's model.
func withModel(ctx context.Context, l *ledger.Ledger) context.Context {
	return context.WithValue(ctx, modelKey, l.Model())
}
