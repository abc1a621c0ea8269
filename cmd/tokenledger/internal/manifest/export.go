package manifest

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tokenledger/tokenledger/ledger/api"
)

// The shapes of a file that is written. Their keys are those that Parse reads.
type (
	fileOut struct {
		Accounts []accountOut `yaml:"accounts"`
	}
	accountOut struct {
		Login  string     `yaml:"login"`
		Kind   string     `yaml:"kind"`
		Name   string     `yaml:"name,omitempty"`
		Mail   string     `yaml:"mail,omitempty"`
		Owner  string     `yaml:"owner,omitempty"`
		State  string     `yaml:"state"`
		Grants []string   `yaml:"grants"`
		Tokens []tokenOut `yaml:"tokens"`
	}
	tokenOut struct {
		ID          string          `yaml:"id,omitempty"`
		App         string          `yaml:"app,omitempty"`
		Device      string          `yaml:"device,omitempty"`
		State       string          `yaml:"state"`
		Scopes      []string        `yaml:"scopes,omitempty"`
		Inherit     bool            `yaml:"inherit,omitempty"`
		ExpiresAt   string          `yaml:"expires_at,omitempty"`
		Constraints *constraintsOut `yaml:"constraints,omitempty"`
	}
	constraintsOut struct {
		CIDRs      []string `yaml:"cidrs,omitempty"`
		Origins    []string `yaml:"origins,omitempty"`
		Methods    []string `yaml:"methods,omitempty"`
		Audience   []string `yaml:"audience,omitempty"`
		HeaderOnly bool     `yaml:"header_only,omitempty"`
		Rate       int      `yaml:"rate,omitempty"`
	}
)

// Exported returns the accounts of a state that a file can declare: not root, not
// those that are erased, and none of which the caller sees only a part.
func (s *State) Exported() []api.Account {
	list := slices.DeleteFunc(slices.Clone(s.Accounts), func(a api.Account) bool {
		return a.State == "erased" || a.Partial || a.Login == "" || sameLogin(a.Login, RootLogin)
	})
	slices.SortFunc(list, func(a, b api.Account) int { return cmp.Compare(a.Login, b.Login) })
	return list
}

// Export writes a file that declares what a state has, without tokens that have
// ended.
func Export(s *State) ([]byte, error) {
	out := fileOut{Accounts: []accountOut{}}
	for _, a := range s.Exported() {
		o := accountOut{
			Login: a.Login, Kind: a.Kind, Name: a.Name, Mail: a.Mail, State: a.State,
			Grants: append([]string{}, a.Grants...), Tokens: []tokenOut{},
		}
		if a.Owner != "" {
			o.Owner = s.login(a.Owner)
		}
		count := map[string]int{}
		for _, t := range s.Tokens[a.ID] {
			if !Ended(&t) {
				count[t.App+"\x00"+t.Device]++
			}
		}
		for _, t := range s.Tokens[a.ID] {
			if !Ended(&t) {
				o.Tokens = append(o.Tokens, exportToken(&t, count[t.App+"\x00"+t.Device] > 1))
			}
		}
		slices.SortStableFunc(o.Tokens, func(a, b tokenOut) int {
			return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Device, b.Device), cmp.Compare(a.ID, b.ID))
		})
		out.Accounts = append(out.Accounts, o)
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(out); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

func exportToken(t *api.Token, shared bool) tokenOut {
	o := tokenOut{App: t.App, Device: t.Device, State: tokenState(t), Inherit: t.Inherit}
	if shared {
		o.ID = t.ID
	}
	if !t.Inherit {
		o.Scopes = t.Scopes
	}
	if t.ExpiresAt != nil {
		o.ExpiresAt = t.ExpiresAt.UTC().Format(time.RFC3339Nano)
	}
	if c := t.Constraints; !sameConstraints(c, nil) {
		o.Constraints = &constraintsOut{c.CIDRs, c.Origins, c.Methods, c.Audience, c.HeaderOnly, c.Rate}
	}
	return o
}
