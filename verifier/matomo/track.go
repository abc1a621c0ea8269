package matomo

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier/matomo/method"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// overrides are parameters of a hit that Matomo takes only with a token.
var overrides = []string{"cip", "country", "region", "city", "lat", "long"}

// The parameters of a hit for its time: an absolute one, and how long ago it was.
const (
	timeParameter   = "cdt"
	offsetParameter = "cdo"
	siteOfHit       = "idsite"
)

// maxAge is the age from which Matomo takes the time of a hit only with a token. It
// is a minute less than there, for what the request takes.
const maxAge = 24*time.Hour - time.Minute

// untrusted takes the token of a hit away, and what needs one. Matomo refuses a hit
// with such a parameter and without a token, so that the visit would be lost.
func untrusted(p params, now time.Time) {
	p.remove(tokenParameter)
	for _, name := range overrides {
		p.remove(name)
	}
	at, hasTime, ok := p.get(timeParameter)
	offset, hasOffset, ok2 := p.get(offsetParameter)
	if !hasTime && !hasOffset {
		return
	}
	age := time.Duration(0)
	if hasTime {
		t, known := timeOf(at)
		age, ok = now.Sub(t), ok && known
	}
	if hasOffset {
		s, err := strconv.ParseFloat(offset, 64)
		age += time.Duration(math.Min(math.Abs(s), 1e9)) * time.Second
		ok2 = ok2 && err == nil && !math.IsNaN(s)
	}
	if !ok || !ok2 || age > maxAge || age < -maxAge {
		p.remove(timeParameter)
		p.remove(offsetParameter)
	}
}

// timeOf reads a time in a form that Matomo's clients use.
func timeOf(text string) (time.Time, bool) {
	if s, err := strconv.ParseInt(text, 10, 64); err == nil && s > 0 && s < 1<<40 {
		return time.Unix(s, 0), true
	}
	for _, layout := range []string{time.DateTime, time.RFC3339, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// track decides on a request to the tracker. A hit is never refused because of its
// token: without a valid one it is passed on without it.
func (x *exchange) track() *refusal {
	if mayBeBulk(x.q) {
		// Matomo reads the body as JSON, also if it claims to be a form.
		c, refused := credentialOf(x.r.Header, &php.Request{Query: x.q.Query})
		if refused != nil {
			return refused
		}
		return x.trackBulk(c)
	}
	c, refused := credentialOf(x.r.Header, x.q)
	if refused != nil {
		return refused
	}
	if c.secret == "" {
		return nil
	}
	site := x.hitSite(merged{x.q})
	if twice(x.q, []string{siteOfHit}) != "" {
		site = ""
	}
	token, reason := x.trackers(c, []string{site})
	if token[site] == "" {
		x.outcome, x.reason, x.rebuilt = Untrusted, reason, true
		now := x.g.cfg.Now()
		untrusted(phpParams{&x.q.Query}, now)
		untrusted(phpParams{&x.q.Post}, now)
		return nil
	}
	if x.q.Kind == php.Raw {
		x.q.Body = nil // it has no parameters
	}
	x.send(token[site], c)
	return nil
}

// hitSite returns the site of a hit, empty if it is not in the one form that is
// accepted.
func (x *exchange) hitSite(p params) string {
	text, _, ok := p.get(siteOfHit)
	sites, err := method.ParseSites(text)
	if !ok || err != nil || sites.All || len(sites.IDs) != 1 || sites.String() != text {
		return ""
	}
	return text
}

// trackers returns for each site the token with which Matomo gets a hit, empty if
// the hit loses it, and then why.
func (x *exchange) trackers(c credential, sites []string) (tokens map[string]string, reason string) {
	tokens = map[string]string{}
	var need []events.Scope
	for _, site := range sites {
		if site == "" {
			reason = "bad_site"
			continue
		}
		need = append(need, events.Scope{Permission: method.TrackPermission, Type: method.SiteType, ID: site})
	}
	slices.SortFunc(need, events.Scope.Compare)
	if need = slices.Compact(need); len(need) == 0 {
		return tokens, reason
	}
	f := x.ask(c, need, Audience)
	switch {
	case f.OK():
		token, refused := x.tokenFor(&f, c.secret, false)
		if refused != nil {
			return tokens, refused.reason
		}
		for _, n := range need {
			tokens[n.ID] = token
		}
	case f.Lacking != "" && len(need) > 1: // some of the sites are not the token's
		for _, n := range need {
			some, why := x.trackers(c, []string{n.ID})
			if some[n.ID] == "" {
				reason = why
			}
			tokens[n.ID] = some[n.ID]
		}
	default:
		reason = f.refused().reason
	}
	return tokens, reason
}

// mayBeBulk reports whether Matomo may take the body for a list of hits: it looks
// for the name in the bytes, whatever the type of the body is.
func mayBeBulk(q *php.Request) bool {
	if q.Kind != php.Raw && q.Kind != php.Form {
		return false
	}
	return bytes.Contains(q.Body, []byte(`"requests"`)) || bytes.Contains(q.Body, []byte(`'requests'`)) ||
		q.Kind == php.Raw && bytes.HasPrefix(asDecoded(q.Body), []byte("{"))
}

// asDecoded returns the text that Matomo decodes as JSON: it trims a body, and
// removes the line ends in it, also where JSON has none.
func asDecoded(body []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(bytes.Trim(body, " \t\n\r\v\x00"), []byte("\n"), nil), []byte("\r"), nil)
}

// maxTokens is how many tokens are checked for one list of hits. Hits with others
// lose theirs: each costs a check, also one that nobody ever created.
const maxTokens = 64

// hit is one entry of a list of hits.
type hit struct {
	p     params
	query *php.Params // of an entry that is a URL
	own   credential
	site  string
}

// trackBulk decides on a list of hits, each by itself.
func (x *exchange) trackBulk(c credential) *refusal {
	raw := asDecoded(x.q.Body)
	body, hits, refused := x.readHits(raw)
	if refused != nil {
		has := func(word string) bool { return bytes.Contains(raw, []byte(word)) }
		if c.secret == "" && !has("requests") && !has(tokenParameter) && !has(`\u`) { // which may hide both
			return nil // it is no list of hits, and Matomo does not read it
		}
		return refused
	}
	text, _, ok := body.get(tokenParameter)
	if !ok {
		return badRequest("malformed_token", "token_auth is not one text.")
	}
	if refused := c.add(text, false, true); refused != nil {
		return refused
	}
	body.remove(tokenParameter)
	sites := map[credential][]string{}
	for _, h := range hits {
		if c.secret != "" { // it covers every entry, also one with its own
			h.own = c
		}
		if h.own.secret == "" {
			continue
		}
		if sites[h.own] == nil && len(sites) == maxTokens {
			x.outcome, x.reason = Untrusted, "too_many_tokens"
			continue
		}
		sites[h.own] = append(sites[h.own], h.site)
	}
	if len(sites) == 0 && c.secret == "" {
		if _, found := x.q.Post.Get(tokenParameter); found { // in the same bytes, read as a form
			return badRequest("ambiguous", "The list of hits is also a form with a token.")
		}
		return nil
	}
	tokens := map[credential]map[string]string{}
	for own, list := range sites {
		var why string
		if tokens[own], why = x.trackers(own, list); why != "" {
			x.outcome, x.reason = Untrusted, why
		}
	}
	x.placeTokens(c, body, hits, tokens)
	return x.sendHits(body, hits)
}

// placeTokens gives each hit its token, or takes away what it needs one for. One
// token for all of them is in the body, so that Matomo looks for it once.
func (x *exchange) placeTokens(c credential, body object, hits []*hit, tokens map[credential]map[string]string) {
	now, all := x.g.cfg.Now(), c.secret != "" && len(hits) > 0
	for _, h := range hits {
		token := tokens[h.own][h.site]
		all = all && token != ""
		h.p.remove(tokenParameter)
		switch {
		case h.own.secret == "":
		case token == "":
			untrusted(h.p, now)
		case token != h.own.secret:
			x.given, x.placed = h.own.secret, token
		}
	}
	if all {
		body.set(tokenParameter, tokens[c][hits[0].site])
		return
	}
	for _, h := range hits {
		if token := tokens[h.own][h.site]; h.own.secret != "" && token != "" {
			h.p.set(tokenParameter, token)
		}
	}
}

// sendHits writes the list.
func (x *exchange) sendHits(body object, hits []*hit) *refusal {
	list := make([]any, len(hits))
	for i, h := range hits {
		list[i] = h.p
		if h.query != nil {
			list[i] = "?" + h.query.Encode()
		}
	}
	body["requests"] = list
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		return badRequest("malformed_bulk", "The list of hits cannot be written.")
	}
	x.q.Query.Delete(tokenParameter)
	x.q.Kind, x.q.Body, x.q.Post = php.Raw, b.Bytes(), php.Params{}
	x.r.Header.Set("Content-Type", "application/json")
	if x.rebuilt = true; x.outcome != Untrusted {
		x.outcome = Checked
	}
	return nil
}

// withoutControls returns a query as PHP's parse_url does.
func withoutControls(query string) string {
	b := []byte(query)
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = '_'
		}
	}
	return string(b)
}

// readHits reads the body of a list of hits.
func (x *exchange) readHits(body []byte) (object, []*hit, *refusal) {
	malformed := badRequest("malformed_bulk", `The body is not a JSON object with a list "requests" of hits.`)
	var o object
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&o); err != nil || o == nil {
		return nil, nil, malformed
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, malformed
	}
	list, ok := o["requests"].([]any)
	if !ok && o["requests"] != nil {
		return nil, nil, malformed
	}
	var hits []*hit
	for _, v := range list {
		h := new(hit)
		switch v := v.(type) {
		case map[string]any:
			h.p = object(v)
		case string:
			v, _, _ = strings.Cut(v, "#")
			_, query, _ := strings.Cut(v, "?")
			// parse_url, by which Matomo reads it, makes "_" of control characters.
			p, err := php.ParseQuery(withoutControls(query), php.Limits{})
			if err != nil {
				return nil, nil, unreadable(err)
			}
			h.query = &p
			h.p = phpParams{h.query}
		default:
			return nil, nil, malformed
		}
		text, _, ok := h.p.get(tokenParameter)
		if !ok {
			return nil, nil, badRequest("malformed_token", "token_auth is not one text.")
		}
		if refused := h.own.add(text, false, true); refused != nil {
			return nil, nil, refused
		}
		h.site = x.hitSite(h.p)
		hits = append(hits, h)
	}
	return o, hits, nil
}
