package client

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
)

// A Session is the session of a person who signed in, and its server. It is
// sent to no other server.
type Session struct {
	Server  string   `json:"server"`
	Servers []string `json:"servers,omitempty"` // of the cluster; empty in the file of an older program
	Secret  string   `json:"secret"`
	Login   string   `json:"login,omitempty"` // empty in the file of an older program
	// Fingerprint is that of the servers' certificates, with commas between several, if
	// login was given one.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// ErrSignedOut reports that there is no session file.
var ErrSignedOut = errors.New("nobody has signed in here")

// ReadSession returns the session in the session file, or ErrSignedOut.
func (cfg *Config) ReadSession() (s Session, err error) {
	path := cfg.SessionFile
	if path == "" {
		return s, ErrSignedOut
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, ErrSignedOut
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return s, exit.Failf(
			exit.NotAllowed,
			"credential",
			"cannot read the session file %s: %s",
			path,
			exit.Cause(err, path),
		)
	}
	if err := cfg.secretRule().Check(path, info); err != nil {
		return s, exit.Failf(exit.NotAllowed, "credential", "the session file %s is exposed: %s. Run chmod 600 on it and "+
			"'tokenledger logout', then sign in again; or add --allow-insecure-file-mode", path, err)
	}
	if err := json.Unmarshal(b, &s); err != nil || !events.IsSessionSecret(s.Secret) {
		return s, exit.Failf(exit.NotAllowed, "credential",
			"the session file %s holds no session: sign in again with 'tokenledger login'", path)
	}
	return s, nil
}

// WriteSession stores a session in the session file.
func (cfg *Config) WriteSession(s Session) error {
	path := cfg.SessionFile
	if path == "" {
		return exit.Inputf("there is no home folder for the session file; name a file with --session-file")
	}
	b, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err != nil {
		return exit.Failf(exit.Error, "session_file", "cannot write the session file %s: %s", path, exit.Cause(err, path))
	}
	// A new file replaces the old one: a link, or a mode that others set, must not
	// decide who can read the secret.
	err = disk.Replace(path, append(b, '\n'))
	if err != nil {
		return exit.Failf(exit.Error, "session_file", "cannot write the session file %s: %s", path, exit.Cause(err, path))
	}
	return nil
}

// ForgetSession removes the session file.
func (cfg *Config) ForgetSession() error {
	if err := os.Remove(cfg.SessionFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return exit.Failf(exit.Error, "session_file",
			"cannot remove the session file %s: %s", cfg.SessionFile, exit.Cause(err, cfg.SessionFile))
	}
	return nil
}

// servers returns the servers that the session belongs to.
func (s Session) servers() []string {
	if len(s.Servers) == 0 {
		return []string{s.Server}
	}
	return s.Servers
}

// of reports whether the session belongs to a server.
func (s Session) of(base *url.URL) bool {
	return slices.ContainsFunc(s.servers(), func(own string) bool {
		return strings.TrimSuffix(own, "/") == strings.TrimSuffix(base.String(), "/")
	})
}

// foreign returns the first server of a client that the session does not belong to,
// nil if there is none.
func (s Session) foreign(c *Client) *url.URL {
	for _, base := range c.servers() {
		if !s.of(base) {
			return base
		}
	}
	return nil
}

// useSession makes the client send the session of the session file.
func (c *Client) useSession() error {
	s, err := c.cfg.ReadSession()
	switch {
	case errors.Is(err, ErrSignedOut):
		return exit.Failf(exit.NotAllowed, "credential", "you are not signed in; run 'tokenledger login'")
	case err != nil:
		return err
	case s.foreign(c) != nil:
		return exit.Failf(exit.NotAllowed, "credential",
			"you are signed in to %s, not to %s (%s). Name the first with --server, sign in to the second with "+
				"'tokenledger login', or %s",
			strings.Join(s.servers(), ", "), s.foreign(c), c.source(), c.cfg.insteadOfSession())
	}
	c.secret, c.owner, c.login = s.Secret, c.cfg.SessionFile, s.Login
	return nil
}

// insteadOfSession says how to send a token while there is a session.
func (cfg *Config) insteadOfSession() string {
	if path := cfg.rootToken(); path != "" {
		return "send the token of the data folder with --token-file " + path
	}
	return "send a token with --token-file"
}
