// Package browsertest asks tokenledger from pages in a real Chromium.
//
// It is a module of its own, so that the product does not depend on chromedp, which
// steers the browser.
//
// # What it shows
//
//   - A script of a page that the policy lists (policy set --cors-origin) calls an
//     application behind nginx, the API and a verifier with a token, and reads the
//     answers and the refusals.
//   - A script of another page reads nothing, and its call does not reach the
//     application.
//   - A frame with a widget of Matomo, whose token ops/deploy/matomo/embed.sh made,
//     works in pages of its origin, through the gateway and before a real PHP. Every
//     other site, widget, method and page is refused.
//   - The page /docs works under its content security policy.
//
// # Requirements
//
// Debian's chromium, nginx, php and curl. Without them the tests are skipped, in a way that is
// not overlooked.
package browsertest
