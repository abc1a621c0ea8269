package matomo

import (
	"net/http"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/matomo/method"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// securityKeys decide what a request does and as whom. Each comes from one place.
var securityKeys = []string{
	"module", "action", "method", "idSite", "idSites", "urls", "apiModule", "apiAction", "reportUniqueId",
	"moduleToWidgetize", "actionToWidgetize", "widgetModule", "widgetAction",
}

// sessionKey makes Matomo use a session and not a token.
const sessionKey = "force_api_session"

// call is one call of a method, with the second method that it may name.
type call struct {
	p       params
	names   []string          // of the methods
	need    method.Need       // of all of them
	choices map[string]chosen // site parameter -> what "all" needs
	widget  bool
}

type chosen struct{ method.Need }

// refuseAlways refuses methods that are never called from outside, with a token or
// without.
func (x *exchange) refuseAlways() *refusal {
	if refused := x.checkNested(); refused != nil {
		return refused
	}
	for _, p := range []*php.Params{&x.q.Query, &x.q.Post} {
		for _, name := range []string{"method", "apiModule", "apiAction"} {
			text, _, _ := (phpParams{p}).get(name)
			// Matomo removes line ends and zero bytes, and decodes entities.
			if strings.ContainsAny(method.Clean(text), "&\n\r\x00") {
				return badRequest("ambiguous", "The parameter %s has characters that are not expected.", name)
			}
			if name == "apiAction" {
				plugin, _, _ := (phpParams{p}).get("apiModule")
				text = plugin + "." + text
			}
			if takesPassword(x.settings.Methods, text) {
				return forbidden("password_method", "This method is not available here.")
			}
		}
	}
	return nil
}

// takesPassword reports whether a method takes a password in place of a token. Here
// capitals do not matter.
func takesPassword(t *method.Table, name string) bool {
	name = method.Clean(name)
	is := func(m string) bool { return strings.EqualFold(m, name) }
	return name != "" && slices.ContainsFunc(t.PasswordMethods(), is)
}

// nestedParameters are those of the second method. Matomo makes a call of them, which
// would have a token and sites of its own.
const nestedParameters = "apiParameters"

// checkNested refuses parameters of the second method that decide what is called and
// as whom.
func (x *exchange) checkNested() *refusal {
	for _, p := range []*php.Params{&x.q.Query, &x.q.Post} {
		v, _ := p.Get(nestedParameters)
		if v.Array == nil {
			continue
		}
		for name, v := range v.Array.All() {
			if v.Array != nil || !isPlain(name) || strings.ContainsAny(v.Text, "&\x00") || isSecurityKey(keyOf(name)) {
				return badRequest("second_target", "apiParameters has a parameter that is not expected.")
			}
		}
	}
	return nil
}

// isBulk reports whether the request may contain other requests. Other methods have
// a parameter urls too, for the addresses of a site.
func (x *exchange) isBulk() bool {
	for _, p := range []*php.Params{&x.q.Query, &x.q.Post} {
		text, _, _ := (phpParams{p}).get("method")
		if strings.EqualFold(method.Clean(text), method.Bulk) {
			return true
		}
	}
	return false
}

// call decides on a request with a token, or on one that contains others.
func (x *exchange) call(c credential) *refusal {
	switch x.r.Method {
	case http.MethodGet, http.MethodPost, http.MethodHead:
	default:
		return refuse(http.StatusMethodNotAllowed, "http_method", "Send GET or POST.")
	}
	if x.q.Kind == php.Raw {
		return refuse(http.StatusUnsupportedMediaType, "raw_body", "The API reads forms only.")
	}
	if name := twice(x.q, securityKeys); name != "" {
		return badRequest("ambiguous", "The parameter %s is in the URL and in the body.", name)
	}
	all := merged{x.q}
	all.remove(sessionKey)
	module, _, ok := all.get("module")
	action, _, ok2 := all.get("action")
	if !ok || !ok2 {
		return badRequest("ambiguous", "module or action is not one text.")
	}
	flatten(&x.q.Query, method.SiteParameter)
	flatten(&x.q.Post, method.SiteParameter)
	flatten(&x.q.Query, method.SitesParameter)
	flatten(&x.q.Post, method.SitesParameter)
	switch {
	case module == "Widgetize":
		return x.embed(c, action)
	case module != "API":
		return forbidden("module", "A token is only for module=API.")
	case action != "" && action != "index":
		return forbidden("module", "A token is only for the methods of the API.")
	}
	name, _, ok := all.get("method")
	if ok && method.Clean(name) == method.Bulk {
		return x.bulk(c)
	}
	cl, refused := newCall(x.settings.Methods, all)
	if refused != nil {
		return refused
	}
	token, refused := x.authorize(c, []*call{cl})
	if refused != nil {
		return refused
	}
	x.send(token, c)
	return nil
}

// send makes the request one with a token that Matomo knows. The token is in the
// body, so that no log of a web server has it.
func (x *exchange) send(token string, c credential) {
	x.q.Query.Delete(tokenParameter)
	x.q.Post.Set(tokenParameter, php.Text(token))
	x.outcome, x.rebuilt = Checked, true
	if token != c.secret {
		x.given, x.placed = c.secret, token
	}
}

// newCall reads what a call is about, and writes its parameters in the one form that
// was read.
func newCall(t *method.Table, p params) (*call, *refusal) {
	name, _, ok := p.get("method")
	m := t.Find(method.Clean(name))
	switch {
	case !ok || name == "":
		return nil, badRequest("no_method", "The parameter method is missing or is not one text.")
	case m == nil:
		return nil, forbidden("unknown_method", "The method %s is not known here; an operator can add it.", quote(name))
	}
	p.set("method", m.Name)
	c := &call{p: p, choices: map[string]chosen{}}
	targets, refused := secondTargets(t, p)
	if refused != nil {
		return nil, refused
	}
	for _, m := range append([]*method.Method{m}, targets...) {
		if refused := c.add(m); refused != nil {
			return nil, refused
		}
	}
	// A parameter that the method does not read could be one for what it calls.
	for _, name := range []string{method.SiteParameter, method.SitesParameter} {
		if len(m.Sites) > 0 && !slices.Contains(m.Sites, name) {
			p.remove(name)
		}
	}
	return c, nil
}

// secondTargets returns the methods that a call names besides its own.
func secondTargets(t *method.Table, p params) (list []*method.Method, _ *refusal) {
	module, hasModule, ok := p.get("apiModule")
	action, hasAction, ok2 := p.get("apiAction")
	if hasModule != hasAction || !ok || !ok2 {
		return nil, badRequest("second_target", "apiModule and apiAction are one text each, and come together.")
	}
	names := []string{}
	if hasModule && (module != "" || action != "") {
		names = append(names, module+"."+action)
	}
	report, hasReport, ok := p.get("reportUniqueId")
	if !ok {
		return nil, badRequest("second_target", "reportUniqueId is not one text.")
	}
	if hasReport && report != "" { // as in Referrers_getWebsites, maybe with more behind
		module, action, _ := strings.Cut(report, "_")
		action, _, _ = strings.Cut(action, "_")
		names = append(names, module+"."+action)
	}
	for _, name := range names {
		m := t.Find(method.Clean(name))
		if m == nil || m.Effect == method.Meta || m.Name != name && !strings.HasPrefix(name, "Referers.") {
			return nil, forbidden("unknown_method", "The report %s is not known here.", quote(name))
		}
		list = append(list, m)
	}
	return list, nil
}

// add adds the need of a method.
func (c *call) add(m *method.Method) *refusal {
	c.names = append(c.names, m.Name)
	named := false
	for _, param := range []string{method.SiteParameter, method.SitesParameter} {
		text, found, ok := c.p.get(param)
		if !found {
			continue
		}
		sites, err := method.ParseSites(text)
		if !ok || err != nil {
			return badRequest("bad_sites", "%s: %s.", param, method.ErrBadSites)
		}
		if !slices.Contains(m.Sites, param) {
			continue
		}
		named = true
		need, ok := m.Need(&sites)
		if !ok {
			return notCallable(m)
		}
		c.merge(need, param)
		c.p.set(param, sites.String())
	}
	if !named {
		need, ok := m.Need(nil)
		if !ok {
			return notCallable(m)
		}
		c.merge(need, "")
	}
	return nil
}

func notCallable(m *method.Method) *refusal {
	return forbidden("not_callable", "The method %s is not available here.", m.Name)
}

func (c *call) merge(n method.Need, param string) {
	c.need.Scopes = append(c.need.Scopes, n.Scopes...)
	c.need.Everywhere = append(c.need.Everywhere, n.Everywhere...)
	c.need.Superuser = c.need.Superuser || n.Superuser
	if len(n.Chosen) > 0 {
		of := c.choices[param]
		of.Chosen = append(of.Chosen, n.Chosen...)
		c.choices[param] = of
	}
}

// authorize checks a token for some calls, and returns the token that Matomo gets.
func (x *exchange) authorize(c credential, calls []*call) (token string, _ *refusal) {
	var need []events.Scope
	for _, cl := range calls {
		need = append(need, cl.need.Scopes...)
	}
	f, refused := x.check(c, need, calls)
	if refused != nil {
		return "", refused
	}
	token, refused = x.tokenFor(&f, c.secret, calls[0].widget)
	if refused != nil {
		return "", refused
	}
	for _, cl := range calls {
		if refused := x.met(&f, cl); refused != nil {
			return "", refused
		}
	}
	x.expires = f.Expires
	return token, nil
}

// met decides what depends on all scopes of the token.
func (x *exchange) met(f *Finding, cl *call) *refusal {
	model := x.g.cfg.Model
	whole := f.whole()
	switch {
	case cl.widget:
	case !method.OpensAPI(f.Scopes):
		return forbidden("insufficient_scope", "The token is not for the API.")
	case cl.need.Superuser && !whole && !model.AnyCovers(f.Scopes, events.Superuser):
		return forbidden("insufficient_scope", "The method %s acts for a user of Matomo; the token needs superuser.", cl.names[0])
	case !cl.need.Met(model, f.Scopes, whole):
		return forbidden("insufficient_scope", "The method %s answers about all sites, and the token is not for all of them.",
			cl.names[0])
	}
	for param, of := range cl.choices {
		sites := of.ChooseSites(model, f.Scopes)
		if sites == nil {
			return forbidden("insufficient_scope", "The token has no site for the method %s.", cl.names[0])
		}
		cl.p.set(param, sites.String())
	}
	return nil
}

// Audience is the audience that a token needs for everything at the gateway. A
// token for some methods has their names, or those of their plugins, instead.
const Audience = "matomo"

// check asks whether a token has scopes, and whether it is for the methods.
func (x *exchange) check(c credential, need []events.Scope, calls []*call) (Finding, *refusal) {
	slices.SortFunc(need, events.Scope.Compare)
	need = slices.Compact(need)
	f := x.ask(c, need, Audience)
	if f.Reason == verifier.WrongAudience || f.Vague && f.Reason == verifier.Unknown {
		if f2, ok := x.checkAudiences(c, need, calls); ok {
			f = f2
		}
	}
	if !f.OK() {
		return f, f.refused()
	}
	return f, nil
}

// checkAudiences asks for each method alone. ok is false if the token is not for one
// of them.
func (x *exchange) checkAudiences(c credential, need []events.Scope, calls []*call) (f Finding, ok bool) {
	seen := map[string]bool{}
	for _, cl := range calls {
		for _, name := range cl.names {
			if seen[name] {
				continue
			}
			seen[name] = true
			plugin, _, _ := strings.Cut(name, ".")
			if f = x.ask(c, need, name); f.Reason == verifier.WrongAudience || f.Vague && f.Reason == verifier.Unknown {
				f = x.ask(c, need, plugin)
			}
			if !f.OK() {
				return f, f.Reason != verifier.WrongAudience && !f.Vague
			}
		}
	}
	return f, len(seen) > 0
}

// ask checks a token for some scopes with one audience. More scopes than one check
// takes are several checks.
func (x *exchange) ask(c credential, need []events.Scope, audience string) (f Finding) {
	for first := true; first || len(need) > 0; first = false {
		n := min(len(need), events.MaxNeed)
		r := &verifier.Request{
			Need: need[:n:n], Address: x.client, Origin: originOf(x.r.Header), Method: x.r.Method, Audience: audience,
			InURL: c.inURL,
		}
		if f = x.g.cfg.Checker.Check(x.ctx(), c.secret, r); !f.OK() {
			return f
		}
		x.still = append(x.still, f.Still)
		need = need[n:]
	}
	return f
}

// tokenFor returns the token with which Matomo gets a request.
func (x *exchange) tokenFor(f *Finding, secret string, widget bool) (string, *refusal) {
	placed := x.settings.Token
	if widget {
		placed = x.settings.WidgetToken
	}
	switch {
	case f.Imported:
		return secret, nil
	case placed != "":
		return placed, nil
	}
	return "", forbidden("no_backend_token", "Matomo does not know this token, and the gateway has none to put in its place.")
}
