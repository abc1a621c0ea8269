package main

import (
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier/matomo"
)

// matomoSettings are the settings of a gateway in front of Matomo.
type matomoSettings struct {
	upstream, listen            stringFlag
	methods, token, widgetToken stringFlag
	maxBody                     sizeFlag
}

// declare adds the flags of a gateway in a node.
func (s *matomoSettings) declare(e *env, flags *pflag.FlagSet) {
	s.maxBody = matomo.DefaultMaxBody
	s.declareAs(e, flags, "matomo-", "URL of a Matomo: the node is a gateway in front of it, with --matomo-listen (default none)")
}

// declareAlone adds the flags of a gateway in a process of its own.
func (s *matomoSettings) declareAlone(e *env, flags *pflag.FlagSet) {
	s.maxBody = matomo.DefaultMaxBody
	s.declareAs(e, flags, "", "URL of Matomo")
}

// declareAs adds the flags, with a prefix before their names.
func (s *matomoSettings) declareAs(e *env, flags *pflag.FlagSet, prefix, upstream string) {
	for _, d := range []struct {
		name, help string
		value      pflag.Value
	}{
		{prefix + "upstream", upstream, &s.upstream},
		{prefix + "listen", "host:port of the gateway", &s.listen},
		{"matomo-methods", "file with API methods of plugins, added to Matomo's own; it is read again on SIGHUP", &s.methods},
		{
			"matomo-token-file",
			"file with a token of Matomo, which replaces tokens that Matomo does not know; it is read again on SIGHUP",
			&s.token,
		},
		{
			"matomo-widget-token-file",
			"file with a token of a user of Matomo who has no more than view: it does the same for widgets",
			&s.widgetToken,
		},
		{"matomo-max-body", "largest form or list of hits that is read; the same as PHP's post_max_size", &s.maxBody},
	} {
		e.declare(flags, setting{name: d.name, help: d.help}, d.value)
		allowEmpty(flags, d.name)
		group(flags, groupMatomo, d.name)
	}
}

// files returns the names of the files.
func (s *matomoSettings) files() matomo.Files {
	return matomo.Files{Methods: string(s.methods), Token: string(s.token), WidgetToken: string(s.widgetToken)}
}

// config returns the gateway's part of a node's configuration.
func (s *matomoSettings) config() node.Matomo {
	m := node.Matomo{Upstream: string(s.upstream), Listen: string(s.listen), Files: s.files()}
	if s.maxBody != matomo.DefaultMaxBody {
		m.MaxBody = int64(s.maxBody)
	}
	return m
}
