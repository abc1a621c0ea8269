package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
)

// A Sender sends the request of a step.
type Sender func(*Step, client.Request) (*client.Answer, error)

// thing is what later steps need of a thing that an earlier step changed.
type thing struct {
	ID      string `json:"id"`
	Version uint64 `json:"version"`
}

// Carry makes the changes of a plan in their order, until one is refused. It returns
// how many were made.
func (p *Plan) Carry(send Sender) (done int, err error) {
	things := map[string]thing{}
	for i := range p.Steps {
		s := &p.Steps[i]
		on, known := things[s.thing()]
		if !known {
			on = thing{s.ID, s.Version}
		}
		if s.newAccount {
			// A key made of the login could be that of an erased account's token.
			id := things["account "+s.Account].ID
			s.Body["account"], s.unique = id, id
		}
		r, err := s.request(on)
		if err != nil {
			return i, err
		}
		a, err := send(s, r)
		if err != nil {
			return i, err
		}
		var got struct{ Account, Token *thing }
		if err := json.Unmarshal(a.Body, &got); err != nil {
			return i + 1, err
		}
		switch {
		case s.Kind == "account" && got.Account != nil:
			things[s.thing()] = *got.Account
		case s.Kind == "token" && got.Token != nil:
			things[s.thing()] = *got.Token
		}
		s.ID = things[s.thing()].ID
	}
	return len(p.Steps), nil
}

// thing tells the things of a plan apart.
func (s *Step) thing() string {
	if s.Kind == "token" && s.Version != 0 {
		return s.ID // several may have the name
	}
	return s.Kind + " " + s.Name
}

// request returns the request of a step on a thing.
func (s *Step) request(on thing) (client.Request, error) {
	r := client.Request{Method: s.Method, Path: []string{"v1", s.Kind + "s"}, Body: s.Body}
	if s.Action != "create" {
		r.Path = append(r.Path, on.ID)
	}
	if s.Verb != "" {
		r.Path = append(r.Path, s.Verb)
	}
	if s.Matched {
		r.IfMatch = `"` + strconv.FormatUint(on.Version, 10) + `"`
	}
	if s.Action == "create" && s.Kind == "account" {
		// The login lets only one through. A key made of it would bring back the answer
		// about an account that was erased since.
		r.Key = client.NewKey()
		return r, nil
	}
	var err error
	r.Key, err = s.key(r, on)
	return r, err
}

// key returns an idempotency key that depends on what a request does and on the
// state before it, so that a plan that was interrupted and is made again does not
// make a change twice.
func (s *Step) key(r client.Request, on thing) (string, error) {
	body := any(s.Body)
	if s.Action == "create" { // the lifetime shrinks between two plans
		body = []string{s.Account, s.App, s.Device, s.unique}
	}
	text, err := json.Marshal([]any{"apply", r.Method, r.Path, body, on.Version})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return "apply-" + hex.EncodeToString(sum[:]), nil
}
