package deploy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/cors"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// Nginx describes one nginx server: what it protects and which verifiers it asks.
type Nginx struct {
	Listen    string   // host:port or port
	Upstream  string   // http://host:port of the application
	Verifiers []string // http://host:port, one or more
	Policy    string   // as in site, or need/view:site/3
	// Timeout is how long nginx waits for a verifier's answer; a later one is
	// discarded. Zero means [DefaultTimeout].
	Timeout time.Duration
	// AccessLog is the absolute path of the access log, or "off". Empty means
	// [DefaultAccessLog].
	AccessLog string
}

// DefaultTimeout is how long nginx waits for a verifier's answer. A later answer
// may be older than the receipt of a revocation: ledgers wait for the end of a
// lease and a margin, which is 400 ms for the default lease of 30 s (see
// ops/design/0008).
const DefaultTimeout = 300 * time.Millisecond

const minTimeout, maxTimeout = 10 * time.Millisecond, 10 * time.Second

// DefaultAccessLog is where nginx writes its access log on Debian.
const DefaultAccessLog = "/var/log/nginx/access.log"

// validate returns all faults. A value without faults cannot end a directive,
// begin another one, or be read as a variable.
func (n Nginx) validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !isPort(n.Listen) && !isHostPort(n.Listen) {
		bad("listen: %s is not host:port or a port", events.Quote(n.Listen))
	}
	if _, err := hostPort(n.Upstream); err != nil {
		bad("upstream: %w", err)
	}
	if len(n.Verifiers) == 0 {
		bad("verifier: name at least one")
	}
	for _, v := range n.Verifiers {
		if _, err := hostPort(v); err != nil {
			bad("verifier: %w", err)
		}
	}
	if err := checkPolicy(n.Policy); err != nil {
		bad("policy: %w", err)
	}
	if n.Timeout != 0 && (n.Timeout < minTimeout || n.Timeout > maxTimeout || n.Timeout%time.Millisecond != 0) {
		bad("timeout: %s is not between 10ms and 10s, in whole milliseconds", n.Timeout)
	}
	if n.AccessLog != "" && n.AccessLog != "off" && !logPath.MatchString(n.AccessLog) {
		bad("access-log: %s is not off or an absolute path of letters, digits and ._-/", events.Quote(n.AccessLog))
	}
	return errors.Join(problems...)
}

var (
	hostName   = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$`)
	policyName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	logPath    = regexp.MustCompile(`^/[A-Za-z0-9._/-]*[A-Za-z0-9._-]$`)
)

func checkPolicy(s string) error {
	name, scope, need := strings.Cut(s, "/")
	if name != "need" || !need {
		if name == "need" || need || !policyName.MatchString(name) {
			return fmt.Errorf(
				"%s is not a policy's name, nor need/ and a scope, as in need/view:site/3",
				events.Quote(s),
			)
		}
		return nil
	}
	_, err := events.ParseScope(scope) // the verifier's model decides whether it exists
	return err
}

// hostPort returns the host and port of a URL that has nothing else.
func hostPort(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || s != "http://"+u.Host {
		return "", fmt.Errorf("%s is not http://host:port", events.Quote(s))
	}
	addr := u.Host
	if u.Port() == "" {
		addr += ":80"
	}
	if !isHostPort(addr) {
		return "", fmt.Errorf("%s is not http://host:port", events.Quote(s))
	}
	return addr, nil
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isPort(port) {
		return false
	}
	if ip := net.ParseIP(host); ip != nil && strings.Contains(host, ":") {
		return s == "["+host+"]:"+port
	}
	return hostName.MatchString(host) && s == host+":"+port
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}

// Write prints the configuration for nginx's http block. It needs nginx 1.15.3 or
// later with ngx_http_auth_request_module (Debian's has it). It returns an error if
// the configuration is invalid or w fails.
func (n Nginx) Write(w io.Writer) error {
	if err := n.validate(); err != nil {
		return err
	}
	if n.Timeout == 0 {
		n.Timeout = DefaultTimeout
	}
	upstream, _ := hostPort(n.Upstream)
	var verifiers []string
	for _, v := range n.Verifiers {
		hp, _ := hostPort(v)
		verifiers = append(verifiers, hp)
	}
	type header struct{ Name, Var, Source string }
	var identity []header
	for _, h := range proxy.Identity {
		v := strings.ReplaceAll(strings.ToLower(h), "-", "_")
		identity = append(identity, header{
			Name: h, Var: "$" + strings.Replace(v, "x_ledger", "ledger", 1), Source: "$upstream_http_" + v,
		})
	}
	if n.AccessLog == "" {
		n.AccessLog = DefaultAccessLog
	}
	return nginxTemplate.Execute(w, struct {
		Nginx
		UpstreamAddr string
		Addrs        []string
		Identity     []header
		Ours         []string // other identity headers
		Elsewhere    []string
		Unavailable  string
		Same         string
		Milliseconds int64
		Preflight    string
		Exposed      string
		MaxAge       int
	}{
		n, upstream, verifiers, identity,
		[]string{
			proxy.HeaderDeny, proxy.HeaderUnavailable, proxy.HeaderURI, proxy.HeaderReferer,
			proxy.HeaderCORSOrigin, proxy.HeaderCORSMethod, proxy.HeaderCORSHeaders,
		},
		elsewhere,
		proxy.HeaderUnavailable, proxy.Same, n.Timeout.Milliseconds(),
		proxy.Preflight, cors.Exposed, int(cors.MaxAge / time.Second),
	})
}

// elsewhere lists headers from which some applications take the path, the client's
// address, the host or the scheme. nginx removes the client's own.
var elsewhere = []string{
	"X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Original-Method", "X-Original-Host",
	"X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Prefix", "X-Forwarded-Path",
	"Forwarded", "X-Client-IP", "Client-IP", "True-Client-IP", "X-Cluster-Client-IP", "X-Forwarded", "Forwarded-For",
	"X-Host", "X-Forwarded-Server", "X-HTTP-Host-Override",
	"X-Forwarded-Scheme", "X-Forwarded-Protocol", "X-Forwarded-Ssl", "X-Url-Scheme", "Front-End-Https",
	"Proxy", // CGI makes it HTTP_PROXY, through which the application may send its own requests
}

var nginxTemplate = template.Must(
	template.New("nginx").Parse(`# tokenledger: nginx asks a verifier before it passes on a request.
# Put this file into the http block, as /etc/nginx/conf.d/tokenledger.conf.
# While no verifier answers, nginx refuses every request with 503.

upstream tokenledger_verifier {
    # All workers share what one of them learns about a verifier.
    zone tokenledger_verifier 64k;
{{- range .Addrs}}
    server {{.}} max_fails=1 fail_timeout=1s;
{{- end}}
    keepalive 32;
}

upstream tokenledger_app {
    server {{.UpstreamAddr}};
    keepalive 32;
}

# The application gets the client's URI byte for byte, or the verifier's copy of
# it without the token. A verifier that sends neither is an older version; then
# nginx does not pass on the request.
map $ledger_uri $ledger_pass {
    default "";
    {{.Same}} http://tokenledger_app$request_uri;
    "~^/" http://tokenledger_app$ledger_uri;
}
map $ledger_referer $ledger_app_referer {
    default $ledger_referer;
    {{.Same}} $http_referer;
}

# The host and port that the client called. $host has the host without its port,
# and is right in absolute URIs and HTTP/2 too; the Host header adds the port.
map "$host $http_host" $ledger_port {
    "~*^(?<ledger_called>\S+) \k<ledger_called>\.?:(?<ledger_called_port>[0-9]{1,5})$" :$ledger_called_port;
    default "";
}
map "$scheme$ledger_port" $ledger_public_port {
    "~:(?<ledger_given_port>[0-9]+)$" $ledger_given_port;
    https 443;
    default 80;
}

# Only WebSocket may switch protocols: another one, such as h2c, would open a
# connection to the application on which nothing is checked.
map $http_upgrade $ledger_upgrade {
    "~*^websocket$" websocket;
    default "";
}
map $ledger_upgrade $ledger_connection {
    websocket upgrade;
    default "";
}

# Scripts of pages that the ledger's policy lists (policy set --cors-origin) may
# read the answers. For others, the application's own headers pass as they are.
map $ledger_cors_origin $ledger_cors_allow {
    default $ledger_cors_origin;
    "" $upstream_http_access_control_allow_origin;
}
map $ledger_cors_origin $ledger_cors_expose {
    default "{{.Exposed}}";
    "" $upstream_http_access_control_expose_headers;
}
map $ledger_cors_origin $ledger_cors_credentials {
    default "";
    "" $upstream_http_access_control_allow_credentials;
}
map $http_origin $ledger_cors_vary {
    default "Origin";
    "" "";
}

# The "combined" format without queries: a query may contain a token.
map $request_uri $ledger_path {
    "~^(?<ledger_raw_path>[^?#]*)" $ledger_raw_path;
}
map $http_referer $ledger_page {
    "~^(?<ledger_raw_page>[^?#]*)" $ledger_raw_page;
}
log_format tokenledger '$remote_addr - - [$time_local] "$request_method $ledger_path $server_protocol" '
    '$status $body_bytes_sent "$ledger_page" "$http_user_agent"';

server {
    listen {{.Listen}};
{{- if eq .AccessLog "off"}}
    access_log off;
{{- else}}
    access_log {{.AccessLog}} tokenledger;
{{- end}}

    # CGI and PHP read X_Ledger_Account and X-Ledger-Account as one variable.
    underscores_in_headers off;
    ignore_invalid_headers on;
    # The verifier and the application must see the same path.
    merge_slashes off;

    location / {
        # All checks must pass, even if an outer block has "satisfy any".
        satisfy all;
        auth_request /_tokenledger;
{{- range .Identity}}
        auth_request_set {{.Var}} {{.Source}};
{{- end}}
        auth_request_set $ledger_uri $upstream_http_x_ledger_uri;
        auth_request_set $ledger_referer $upstream_http_x_ledger_referer;
        auth_request_set $ledger_deny $upstream_http_x_ledger_deny;
        auth_request_set $ledger_challenge $upstream_http_www_authenticate;
        auth_request_set $ledger_retry $upstream_http_retry_after;
        auth_request_set $ledger_expires $upstream_http_ledger_token_expires;
        auth_request_set $ledger_cors_origin $upstream_http_x_ledger_cors_origin;
        auth_request_set $ledger_cors_method $upstream_http_x_ledger_cors_method;
        auth_request_set $ledger_cors_headers $upstream_http_x_ledger_cors_headers;
        # Present while the token is about to expire; nginx omits an empty one.
        add_header Ledger-Token-Expires $ledger_expires always;
        proxy_hide_header Access-Control-Allow-Origin;
        proxy_hide_header Access-Control-Expose-Headers;
        proxy_hide_header Access-Control-Allow-Credentials;
        add_header Access-Control-Allow-Origin $ledger_cors_allow always;
        add_header Access-Control-Expose-Headers $ledger_cors_expose always;
        add_header Access-Control-Allow-Credentials $ledger_cors_credentials always;
        add_header Vary $ledger_cors_vary always;
        # The pages below are for refusals; error pages of the application pass.
        proxy_intercept_errors off;
        error_page 403 = @tokenledger_denied;
        error_page 500 = @tokenledger_unavailable;

        # Each one is set, also to an empty value: this removes the client's
        # own. The verifier refuses requests with any other X-Ledger-*.
{{- range .Identity}}
        proxy_set_header {{.Name}} {{.Var}};
{{- end}}
{{- range .Ours}}
        proxy_set_header {{.}} "";
{{- end}}
        # Some applications take the path, the client's address or the scheme from
        # these headers, instead of what was checked and what is set below.
{{- range .Elsewhere}}
        proxy_set_header {{.}} "";
{{- end}}
        # The application learns who calls, but not the token.
        proxy_set_header Authorization "";
        proxy_set_header Referer $ledger_app_referer;
        proxy_set_header Host $host$ledger_port;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Host $host$ledger_port;
        proxy_set_header X-Forwarded-Port $ledger_public_port;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_http_version 1.1;
        # A WebSocket's token is checked once, when it opens.
        proxy_set_header Upgrade $ledger_upgrade;
        proxy_set_header Connection $ledger_connection;
        # The headers of the application's answer, such as many cookies.
        proxy_buffer_size 32k;
        proxy_buffers 8 32k;
        proxy_busy_buffers_size 64k;
        proxy_redirect http://tokenledger_app/ /;
        proxy_pass $ledger_pass;
    }

    location = /_tokenledger {
        internal;
        proxy_pass http://tokenledger_verifier/proxy/nginx/{{.Policy}};
        proxy_http_version 1.1;
        proxy_set_header Upgrade "";
        proxy_set_header Connection "";
        proxy_set_header Expect "";
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header Cookie "";
        proxy_set_header X-Original-Method $request_method;
        proxy_set_header X-Original-URI $request_uri;
        proxy_set_header X-Original-Host $host$ledger_port;
        proxy_set_header X-Real-IP $remote_addr;
        # Never cache an answer, even if an outer block does.
        proxy_cache off;
        proxy_store off;
        # The answer may hold the URI, and nginx accepts URIs of up to 8 KB.
        proxy_buffer_size 32k;
        proxy_buffers 4 32k;
        proxy_busy_buffers_size 64k;
        proxy_intercept_errors off;
        # If a verifier is down, or cannot know (503), nginx asks the next one,
        # for two seconds in all.
        proxy_set_header {{.Unavailable}} 503;
        proxy_next_upstream error timeout http_503;
        proxy_next_upstream_timeout 2s;
        proxy_connect_timeout 200ms;
        # nginx discards a later answer: it may be older than the receipt of a
        # revocation. Ledgers wait 400 ms longer than the default lease, so this
        # must be shorter.
        proxy_send_timeout {{.Milliseconds}}ms;
        proxy_read_timeout {{.Milliseconds}}ms;
    }

    location @tokenledger_denied {
        internal;
        default_type application/problem+json;
        add_header Cache-Control no-store always;
        add_header WWW-Authenticate $ledger_challenge always;
        add_header Retry-After $ledger_retry always;
        add_header Access-Control-Allow-Origin $ledger_cors_origin always;
        add_header Access-Control-Expose-Headers $ledger_cors_expose always;
        add_header Vary $ledger_cors_vary always;
        # A browser's question before a call, which has no token. The application
        # does not see it.
        if ($ledger_deny = {{.Preflight}}) {
            add_header Cache-Control no-store always;
            add_header Access-Control-Allow-Origin $ledger_cors_origin always;
            add_header Access-Control-Allow-Methods $ledger_cors_method always;
            add_header Access-Control-Allow-Headers $ledger_cors_headers always;
            add_header Access-Control-Max-Age {{.MaxAge}} always;
            add_header Vary "Origin, Access-Control-Request-Method, Access-Control-Request-Headers" always;
            return 204;
        }
        # auth_request cannot return 429.
        if ($ledger_deny = rate_limited) {
            return 429 '{"title":"Rate limit exceeded","status":429,"code":"rate_limited"}';
        }
        return 403 '{"title":"Permission denied","status":403,"code":"$ledger_deny"}';
    }

    location @tokenledger_unavailable {
        internal;
        default_type application/problem+json;
        add_header Cache-Control no-store always;
        add_header Retry-After 1 always;
        return 503 '{"title":"No verifier available","status":503,"code":"unavailable"}';
    }
}
`),
)
