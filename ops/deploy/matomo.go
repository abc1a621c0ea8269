package deploy

import (
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"text/template"

	"github.com/tokenledger/tokenledger/events"
)

// Matomo describes one nginx server in front of gateways for Matomo.
type Matomo struct {
	Listen   string   // host:port or port
	Gateways []string // http://host:port, one or more; the others are asked if the first is away
	// Direct is the http://host:port of Matomo, to which hits without a token go
	// while no gateway is there. Empty means that they are refused.
	Direct string
	// Path is where Matomo is: it begins and ends with a slash. Empty means /.
	Path string
	// AccessLog is the absolute path of the access log, or "off". Empty means
	// [DefaultAccessLog]. The error log is beside it, or off too.
	AccessLog string
}

// pathPrefix matches a path that means itself in a regular expression, but for its
// dots, and in nginx's language.
var pathPrefix = regexp.MustCompile(`^/([A-Za-z0-9_-][A-Za-z0-9._-]*/)*$`)

// validate returns all faults, as [Nginx.validate] does.
func (m Matomo) validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !isPort(m.Listen) && !isHostPort(m.Listen) {
		bad("listen: %s is not host:port or a port", events.Quote(m.Listen))
	}
	if len(m.Gateways) == 0 {
		bad("gateway: name at least one")
	}
	for _, g := range m.Gateways {
		if _, err := hostPort(g); err != nil {
			bad("gateway: %w", err)
		}
	}
	if m.Direct != "" {
		if _, err := hostPort(m.Direct); err != nil {
			bad("direct: %w", err)
		}
	}
	if m.Path != "" && !pathPrefix.MatchString(m.Path) {
		bad("path: %s is not / or a path between two slashes, as in /analytics/", events.Quote(m.Path))
	}
	if m.AccessLog != "" && m.AccessLog != "off" && !logPath.MatchString(m.AccessLog) {
		bad("access-log: %s is not off or an absolute path of letters, digits and ._-/", events.Quote(m.AccessLog))
	}
	return errors.Join(problems...)
}

// Parts of the regular expressions for hits without a token. A name is written out
// and of letters, digits and _: PHP makes token_auth of token.auth, token%5Fauth and
// others, so names with other characters are not passed on. Quotation marks and
// backslashes are written as numbers, because nginx's language reads them too.
const (
	tokenlessName = `(?!(?i:token_auth)(?:[=&\x22]|$))[A-Za-z0-9_]*+`
	tokenlessPair = tokenlessName + `(?:=[^&;#\x22\x5c\s]*+)?+`
	tokenless     = tokenlessPair + `(?:&` + tokenlessPair + `)*+`
	// A body is a form, or the list that Matomo's own script sends. Matomo reads
	// every body with "requests" in quotation marks as a list.
	tokenlessForm = `(?!.*[\x22\x27]requests[\x22\x27])` + tokenless
	tokenlessList = `{\x22requests\x22:\[\x22\?` + tokenless + `\x22(?:,\x22\?` + tokenless +
		`\x22)*+\](?:,\x22send_image\x22:[01])?+}`
)

// Write prints the configuration for nginx's http block. It needs nginx 1.15.3 or
// later with PCRE. It returns an error if the configuration is invalid or w fails.
func (m Matomo) Write(w io.Writer) error {
	if err := m.validate(); err != nil {
		return err
	}
	if m.AccessLog == "" {
		m.AccessLog = DefaultAccessLog
	}
	if m.Path == "" {
		m.Path = "/"
	}
	var gateways []string
	for _, g := range m.Gateways {
		hp, _ := hostPort(g)
		gateways = append(gateways, hp)
	}
	errorLog := path.Join(path.Dir(m.AccessLog), "error.log")
	if m.AccessLog == "off" {
		errorLog = "/dev/null"
	}
	direct := ""
	if m.Direct != "" {
		direct, _ = hostPort(m.Direct)
	}
	return matomoTemplate.Execute(w, struct {
		Matomo
		ErrorLog                  string
		Addrs                     []string
		DirectAddr                string
		Prefix                    string // of paths, in a regular expression
		Query, BodyForm, BodyList string
		Elsewhere                 []string
	}{
		m, errorLog, gateways, direct, strings.ReplaceAll(m.Path, ".", `\.`), tokenless, tokenlessForm, tokenlessList,
		elsewhere,
	})
}

var matomoTemplate = template.Must(
	template.New("matomo").Parse(`# tokenledger: nginx in front of Matomo's gateways.
# Put this file into the http block, as /etc/nginx/conf.d/tokenledger-matomo.conf.
# For HTTPS, change "listen" to the port 443 with ssl, and add ssl_certificate and
# ssl_certificate_key to the server.

upstream matomo_gateway {
    # All workers share what one of them learns about a gateway.
    zone matomo_gateway 64k;
{{- range .Addrs}}
    server {{.}} max_fails=1 fail_timeout=1s;
{{- end}}
    keepalive 32;
}
{{- if .DirectAddr}}

upstream matomo_direct {
    server {{.DirectAddr}};
}

# Which requests go to Matomo itself while no gateway is there: files of the
# tracker, and hits of which nginx can tell that they have no token. The names of
# their parameters are of letters, digits and _, and none is token_auth. PHP makes
# token_auth of other names too, such as token.auth and token%5Fauth.
map "$request_method $request_uri" $matomo_tokenless_uri {
    default "";
    "~^(GET|HEAD) {{.Prefix}}((matomo|piwik)\.js|js/(piwik|matomo)\.min\.js|js/container_[A-Za-z0-9_]+\.js)(\?{{.Query}})?$" file;
    "~^(GET|HEAD|POST) {{.Prefix}}(matomo\.php|piwik\.php|js/tracker\.php|js/)(\?{{.Query}})?$" hit;
}
# A body is in memory in full, or it is not read here. It is empty, a form, or the
# list of hits that Matomo's script sends.
map "$request_body_file $request_body" $matomo_tokenless_body {
    default "";
    "~^ $" none;
    "~^ {{.BodyForm}}$" form;
    "~^ {{.BodyList}}$" list;
}
map "$matomo_tokenless_uri $matomo_tokenless_body $http_content_encoding" $matomo_tokenless {
    default "";
    "file none " 1;
    "~^hit (none|form|list) $" 1;
}
{{- end}}

# The host and port that the client called. $host has the host without its port,
# and is right in absolute URIs and HTTP/2 too; the Host header adds the port.
map "$host $http_host" $matomo_port {
    "~*^(?<matomo_called>\S+) \k<matomo_called>\.?:(?<matomo_called_port>[0-9]{1,5})$" :$matomo_called_port;
    default "";
}

# The "combined" format without queries: a query may contain a token.
map $request_uri $matomo_path {
    "~^(?<matomo_raw_path>[^?#]*)" $matomo_raw_path;
}
map $http_referer $matomo_page {
    "~^(?<matomo_raw_page>[^?#]*)" $matomo_raw_page;
}
log_format tokenledger_matomo '$remote_addr - - [$time_local] "$request_method $matomo_path $server_protocol" '
    '$status $body_bytes_sent "$matomo_page" "$http_user_agent"';

server {
    listen {{.Listen}};
{{- if eq .AccessLog "off"}}
    access_log off;
{{- else}}
    access_log {{.AccessLog}} tokenledger_matomo;
{{- end}}
    # Lines of the level error have the whole query, and so the tokens in it.
    error_log {{.ErrorLog}} crit;

    # PHP reads X_Forwarded_For and X-Forwarded-For as one variable.
    underscores_in_headers off;
    ignore_invalid_headers on;
    # The gateway and Matomo must see the same path.
    merge_slashes off;
    # The gateway bounds what it reads; uploads of the user interface are larger.
    client_max_body_size 0;
    large_client_header_buffers 4 80k;

    # Each one is set: this removes the client's own. The gateway and Matomo take
    # the client's address, host and scheme from here.
    proxy_set_header Host $host$matomo_port;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Host $host$matomo_port;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Real-IP "";
{{- range .Elsewhere}}
    proxy_set_header {{.}} "";
{{- end}}
    proxy_set_header Connection "";
    proxy_set_header Upgrade "";
    proxy_http_version 1.1;
    proxy_connect_timeout 2s;
    proxy_buffer_size 32k;
    proxy_buffers 8 32k;
    proxy_busy_buffers_size 64k;
    # If a gateway is down, nginx asks the next one. An answer of a gateway, also
    # one that Matomo is down, is final.
    proxy_next_upstream error timeout;
    proxy_next_upstream_timeout 5s;
    proxy_intercept_errors off;

    location / {
        proxy_request_buffering off;
        proxy_pass http://matomo_gateway;
    }
{{- if .DirectAddr}}

    # Files of the tracker, and hits. nginx keeps a body until it is answered, so
    # that it can be sent once more.
    location ~ ^{{.Prefix}}((matomo|piwik)\.(php|js)|js/.*)$ {
        client_body_buffer_size 64k;
        proxy_request_buffering on;
        error_page 502 504 = @matomo_tokenless;
        proxy_pass http://matomo_gateway;
    }

    # No gateway answered.
    location @matomo_tokenless {
        internal;
        if ($matomo_tokenless = "") {
            add_header Retry-After 5 always;
            add_header Cache-Control no-store always;
            return 503;
        }
        # A token in a header is not sent on. proxy_set_header in a location
        # replaces the ones of the server, so all of them are here again.
        proxy_set_header Authorization "";
        proxy_set_header Host $host$matomo_port;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Host $host$matomo_port;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Real-IP "";
{{- range .Elsewhere}}
        proxy_set_header {{.}} "";
{{- end}}
        proxy_set_header Connection "";
        proxy_set_header Upgrade "";
        proxy_pass http://matomo_direct;
    }
{{- end}}
}
`))
