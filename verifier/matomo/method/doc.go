// Package method knows the API methods of Matomo, and the scopes that a call of one
// of them needs.
//
// # Promise
//
// A method that is not in the table has no need: it is refused. The table has the
// public methods of Matomo 5, with the access that Matomo requires, what a call
// does, and which parameters name sites. An operator adds the methods of plugins in
// a file of the same form.
//
// A call on sites needs the permission on each of them. Permission read is enough
// for a method that requires view and only reads; permission view is needed if such
// a method changes something or sends requests to other servers. A method without
// a parameter for sites, and one whose parameter is missing, answers about any site,
// so it needs the permission on all sites.
//
// # Refusals
//
// A list of sites is accepted in one form only: numbers without leading zeros,
// separated by commas, or "all". Matomo also reads 2e0, 01 and " 2" as a site, and
// two readers must not see different sites. Methods that take a password instead of
// a token are never called from outside, whatever a file says.
package method
