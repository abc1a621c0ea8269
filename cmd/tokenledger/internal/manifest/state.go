package manifest

import (
	"slices"

	"github.com/tokenledger/tokenledger/ledger/api"
)

// A State is what the ledger has: all accounts that the caller may see, and the
// tokens of those that matter, by the account's ID.
type State struct {
	Accounts []api.Account
	Tokens   map[string][]api.Token
	Self     string // ID of the caller's own token, empty for none
}

// account returns the account with a login or an ID, nil if there is none. Logins
// do not differ by case.
func (s *State) account(name string) *api.Account {
	for i := range s.Accounts {
		a := &s.Accounts[i]
		if a.State != "erased" && (a.ID == name || a.Login != "" && sameLogin(a.Login, name)) {
			return a
		}
	}
	return nil
}

// partial reports whether the caller sees an account without its login. It is the
// caller's own, and can be any that the state seems not to have.
func (s *State) partial() bool {
	return slices.ContainsFunc(s.Accounts, func(a api.Account) bool { return a.Partial })
}

// Find returns the accounts of the state that a file declares.
func (s *State) Find(f *File) []api.Account {
	var found []api.Account
	for i := range f.Accounts {
		if a := s.account(f.Accounts[i].Login); a != nil {
			found = append(found, *a)
		}
	}
	return found
}

// login returns the login of the account with an ID, and the ID of an account that
// has none or is not known.
func (s *State) login(id string) string {
	if a := s.account(id); a != nil && a.Login != "" {
		return a.Login
	}
	return id
}

// Ended reports whether a token is revoked or expired.
func Ended(t *api.Token) bool { return t.State == "revoked" || t.State == "expired" }

// suspended reports whether a token itself is suspended. Its state can be that of
// its account instead.
func suspended(t *api.Token) bool { return t.State == Suspended || t.StoppedBy != "" }

func tokenState(t *api.Token) string {
	if suspended(t) {
		return Suspended
	}
	return Active
}

// named returns the tokens of a list that an entry of a file identifies.
func (t *Token) named(list []api.Token, ended bool) []*api.Token {
	var found []*api.Token
	for i := range list {
		got := &list[i]
		matches := got.App == t.App && got.Device == t.Device
		if t.ID != "" {
			matches = got.ID == t.ID
		}
		if matches && Ended(got) == ended {
			found = append(found, got)
		}
	}
	return found
}

func sameSet(a, b []string) bool { return within(a, b) && within(b, a) }

// within reports whether each text of a is in b.
func within(a, b []string) bool {
	in := make(map[string]bool, len(b))
	for _, s := range b {
		in[s] = true
	}
	return !slices.ContainsFunc(a, func(s string) bool { return !in[s] })
}

func sameConstraints(a, b *api.Constraints) bool {
	if a == nil {
		a = &api.Constraints{}
	}
	if b == nil {
		b = &api.Constraints{}
	}
	return sameSet(a.CIDRs, b.CIDRs) && sameSet(a.Origins, b.Origins) && sameSet(a.Methods, b.Methods) &&
		sameSet(a.Audience, b.Audience) && a.HeaderOnly == b.HeaderOnly && a.Rate == b.Rate
}

// GrantsOf returns the grants that an account has, as the file declares them or else
// as they are.
func (s *State) GrantsOf(f *File, login string) []string {
	for i := range f.Accounts {
		if a := &f.Accounts[i]; sameLogin(a.Login, login) && a.Grants != nil {
			return *a.Grants
		}
	}
	if a := s.account(login); a != nil {
		return a.Grants
	}
	return nil
}
