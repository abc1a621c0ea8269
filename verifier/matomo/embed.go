package matomo

import (
	"net/http"
	"net/url"

	"github.com/tokenledger/tokenledger/verifier/matomo/method"
)

// embed decides on a widget: an action of the user interface in a frame.
func (x *exchange) embed(c credential, action string) *refusal {
	p := merged{x.q}
	if action != "iframe" {
		return forbidden("module", "Of module=Widgetize only action=iframe is for tokens.")
	}
	module, _, ok := p.get("moduleToWidgetize")
	name, _, ok2 := p.get("actionToWidgetize")
	m := x.settings.Methods.Find(module + "." + name)
	if !ok || !ok2 || m == nil || !m.Embeds() {
		return forbidden("unknown_widget", "The widget %s is not known here; an operator can add it.", quote(module+"."+name))
	}
	for _, other := range []string{"method", "urls", "apiModule", "apiAction", "widgetModule", "widgetAction", "idSites"} {
		p.remove(other)
	}
	text, found, ok := p.get(method.SiteParameter)
	sites, err := method.ParseSites(text)
	if !found || !ok || err != nil {
		return badRequest("bad_sites", "idSite: %s.", method.ErrBadSites)
	}
	cl := &call{p: p, names: []string{m.Name}, choices: map[string]chosen{}, widget: true}
	need, ok := m.NeedToEmbed(&sites)
	if !ok {
		return notCallable(m)
	}
	cl.merge(need, method.SiteParameter)
	p.set(method.SiteParameter, sites.String())
	token, refused := x.authorize(c, []*call{cl})
	if refused != nil {
		return refused
	}
	x.send(token, c)
	return nil
}

// originOf returns the origin of the page that sent a request, empty if it is not
// said or said twice. A frame has no Origin, and says in Referer which page it is in.
func originOf(h http.Header) string {
	if values := h["Origin"]; len(values) > 0 {
		if len(values) > 1 {
			return ""
		}
		return values[0]
	}
	values := h["Referer"]
	if len(values) != 1 {
		return ""
	}
	u, err := url.Parse(values[0])
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
