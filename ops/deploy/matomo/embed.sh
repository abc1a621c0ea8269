#!/bin/sh
# Creates a read-only token for one widget of one site on the pages of one origin,
# and prints the <iframe> for them.
#
#	embed.sh SITE WIDGET ORIGIN
#	embed.sh 3 VisitsSummary.get https://shop.example > frame.html
#
# Environment:
#
#	LEDGER      URL of the API                  (http://127.0.0.1:7600)
#	TOKEN_FILE  file with a token that may create accounts and tokens  (root.token)
#	STATS       URL at which browsers reach Matomo, through the gateway
#	LIFETIME    of the token                    (180d)
#
# The token goes to standard output only, in the frame; so does nothing else. It is
# in the source of the page, and anybody can copy it: it opens this widget only.
set -eu

fail() {
	echo "embed.sh: $*" >&2
	exit 2
}

[ $# = 3 ] || fail "usage: embed.sh SITE WIDGET ORIGIN, as in: embed.sh 3 VisitsSummary.get https://shop.example"
site=$1 widget=$2 origin=$3
ledger=${LEDGER:-http://127.0.0.1:7600}
token_file=${TOKEN_FILE:-root.token}
stats=${STATS:?set STATS to the URL of Matomo, as in https://stats.example}
lifetime=${LIFETIME:-180d}

# What is written into JSON and HTML below is of these characters only.
case $site in *[!0-9]* | '' | 0*) fail "SITE is the number of one site" ;; esac
case $widget in *[!A-Za-z0-9_.]* | *.*.* | .* | *.) fail "WIDGET is a report, as in VisitsSummary.get" ;; *.*) ;; *) fail "WIDGET is a report, as in VisitsSummary.get" ;; esac
case $origin in *[!a-z0-9:/.-]*) fail "ORIGIN is in lower case, as in https://shop.example" ;; http://?* | https://?*) ;; *) fail "ORIGIN is as in https://shop.example" ;; esac
case $lifetime in *[!0-9a-z]* | '') fail "LIFETIME is as in 180d" ;; esac
case $stats in *[!A-Za-z0-9:/._-]*) fail "STATS is a URL without a query, as in https://stats.example" ;; esac
[ -r "$token_file" ] || fail "cannot read $token_file"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
# The secret is in a file that only this user can read: arguments are visible to others.
(umask 077 && printf 'Authorization: Bearer %s\n' "$(cat "$token_file")" >"$work/auth")

# post PATH BODY puts the answer into $work/answer and its status into $status.
post() {
	status=$(printf '%s' "$2" | curl --silent --show-error --max-time 60 -H "@$work/auth" \
		-H 'Content-Type: application/json' --data-binary @- -o "$work/answer" -w '%{http_code}' "$ledger$1") ||
		fail "$ledger does not answer"
}

# The account has no more than the widgets of this site, so no token of it can.
account=embed-site-$site
post /v1/accounts '{"login":"'"$account"'","kind":"service","name":"Widgets of site '"$site"'","grants":["widget:site/'"$site"'"]}'
case $status in
201 | 200 | 409) ;; # it exists already, from the last widget
*) fail "cannot create the account $account: HTTP $status $(cat "$work/answer")" ;;
esac

umask 077
post /v1/tokens '{"account":"'"$account"'","app":"'"$widget"'","device":"iframe","scopes":["widget:site/'"$site"'"],
	"expires_in":"'"$lifetime"'","constraints":{"origins":["'"$origin"'"],"audience":["'"$widget"'"],"methods":["GET"],"rate":50}}'
[ "$status" = 201 ] || [ "$status" = 200 ] || fail "cannot create the token: HTTP $status $(sed 's/"secret":"[^"]*"//' "$work/answer")"
secret=$(sed -n 's/.*"secret":"\([0-9A-Za-z_]*\)".*/\1/p' "$work/answer")
[ -n "$secret" ] || fail "the answer has no secret"
id=$(sed -n 's/.*"id":"\(tok_[0-9a-z]*\)".*/\1/p' "$work/answer")
echo "embed.sh: created the token $id of $account; to end it: tokenledger token revoke $id" >&2

# referrerpolicy: the gateway knows the page by the Referer of the frame.
cat <<END
<iframe title="$widget" width="100%" height="350" frameborder="0" referrerpolicy="strict-origin-when-cross-origin"
  src="${stats%/}/index.php?module=Widgetize&amp;action=iframe&amp;moduleToWidgetize=${widget%.*}&amp;actionToWidgetize=${widget#*.}&amp;idSite=$site&amp;period=day&amp;date=yesterday&amp;disableLink=1&amp;token_auth=$secret"></iframe>
END
