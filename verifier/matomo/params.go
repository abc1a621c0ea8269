package matomo

import (
	"encoding/json"
	"strings"

	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// params are the parameters of one call or hit, wherever they come from.
type params interface {
	// get returns a text. ok is false if the parameter has another form than a text.
	get(name string) (text string, found, ok bool)
	set(name, text string)
	remove(name string)
}

// phpParams are parameters that PHP reads from a query.
type phpParams struct{ *php.Params }

func (p phpParams) get(name string) (string, bool, bool) {
	v, found := p.Get(name)
	return v.Text, found, v.Array == nil
}

func (p phpParams) set(name, text string) { p.Set(name, php.Text(text)) }
func (p phpParams) remove(name string)    { p.Delete(name) }

// merged are the parameters of the query and of the body. Each is in one of them.
type merged struct{ q *php.Request }

func (m merged) get(name string) (string, bool, bool) {
	if text, found, ok := (phpParams{&m.q.Query}).get(name); found {
		return text, found, ok
	}
	return (phpParams{&m.q.Post}).get(name)
}

func (m merged) set(name, text string) {
	if _, found := m.q.Query.Get(name); found {
		m.q.Query.Set(name, php.Text(text))
		return
	}
	m.q.Post.Set(name, php.Text(text))
}

func (m merged) remove(name string) {
	m.q.Query.Delete(name)
	m.q.Post.Delete(name)
}

// twice returns the first of some names that is in the query and in the body.
func twice(q *php.Request, names []string) string {
	for _, name := range names {
		if _, found := q.Query.Get(name); found {
			if _, found := q.Post.Get(name); found {
				return name
			}
		}
	}
	return ""
}

// object are the parameters of a hit in JSON.
type object map[string]any

func (o object) get(name string) (string, bool, bool) {
	v, found := o[name]
	switch v := v.(type) {
	case string:
		return v, found, true
	case json.Number:
		return v.String(), found, true
	case nil:
		return "", found, true
	}
	return "", found, false
}

func (o object) set(name, text string) { o[name] = text }
func (o object) remove(name string)    { delete(o, name) }

// flatten replaces an array of texts, as in idSite[]=1&idSite[]=2, by a list.
func flatten(p *php.Params, name string) {
	v, found := p.Get(name)
	if !found || v.Array == nil || v.Array.Len() == 0 {
		return
	}
	var list []string
	for _, entry := range v.Array.All() {
		if entry.Array != nil {
			return // it stays an array, and is refused
		}
		list = append(list, entry.Text)
	}
	p.Set(name, php.Text(strings.Join(list, ",")))
}
