package method

// widgets are actions that are no API methods, and that dashboards embed. Reports
// can be embedded under the names of their methods.
const widgets = `CoreHome.renderWidgetContainer	view	widget	idSite
Live.widget	view	widget	idSite
Live.getSimpleLastVisitCount	view	widget	idSite
Live.getLastVisitsStart	view	widget	idSite
UserCountryMap.visitorMap	view	widget	idSite
UserCountryMap.realtimeMap	view	widget	idSite
VisitsSummary.index	view	widget	idSite
VisitsSummary.getEvolutionGraph	view	widget	idSite
VisitsSummary.getSparklines	view	widget	idSite
VisitFrequency.getEvolutionGraph	view	widget	idSite
VisitFrequency.getSparklines	view	widget	idSite
Referrers.getEvolutionGraph	view	widget	idSite
Goals.widgetGoalsOverview	view	widget	idSite
Goals.getEvolutionGraph	view	widget	idSite
`

// Embeds reports whether an action may be the content of a widget: it reads, and
// it is about the sites that the request names.
func (m *Method) Embeds() bool {
	return m.Required == View && (m.Effect == Read || m.Effect == Widget) && len(m.Sites) > 0
}
