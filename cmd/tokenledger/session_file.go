package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// savedSession is what login leaves behind: a session, and the server that it is
// of, to which alone it is sent.
type savedSession struct {
	Server string `json:"server"`
	Secret string `json:"secret"`
}

// defaultSessionFile returns where the session is kept where no file is named,
// empty where there is no home to have it in.
func (e *env) defaultSessionFile() string {
	if dir := e.vars["XDG_CONFIG_HOME"]; filepath.IsAbs(dir) { // others are to be ignored
		return filepath.Join(dir, "tokenledger", "session")
	}
	if home := e.vars["HOME"]; filepath.IsAbs(home) {
		return filepath.Join(home, ".config", "tokenledger", "session")
	}
	return ""
}

// errSignedOut reports that nobody has signed in here.
var errSignedOut = errors.New("nobody has signed in here")

// readSession returns the session that login left, or errSignedOut.
func (e *env) readSession() (s savedSession, err error) {
	path := string(e.sessionFile)
	if path == "" {
		return s, errSignedOut
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, errSignedOut
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return s, failf(exitNotAllowed, "credential", "cannot read the session file %s: %s", path, plain(err))
	}
	const others = 0o077
	if info.Mode().Perm()&others != 0 && runtime.GOOS != "windows" {
		return s, failf(exitNotAllowed, "credential", "others may read the session file %s (its mode is %04o): end the session, and sign in again", path, info.Mode().Perm())
	}
	if err := json.Unmarshal(b, &s); err != nil || !events.IsSessionSecret(s.Secret) {
		return s, failf(exitNotAllowed, "credential", "the session file %s holds no session: sign in again with 'tokenledger login'", path)
	}
	return s, nil
}

// writeSession keeps a session for the commands that follow.
func (e *env) writeSession(s savedSession) error {
	path := string(e.sessionFile)
	if path == "" {
		return inputf("there is no home folder to keep the session in; name a file with --session-file")
	}
	b, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err != nil {
		return failf(exitError, "session_file", "cannot keep the session in %s: %s", path, plain(err))
	}
	// A new file in the place of the old: a link, or a mode that others gave it,
	// must not decide who reads the secret.
	f, err := os.CreateTemp(filepath.Dir(path), ".session-*") // 0600
	if err == nil {
		_, err = f.Write(append(b, '\n'))
		err = errors.Join(err, f.Close())
		if err == nil {
			err = os.Rename(f.Name(), path)
		}
		if err != nil {
			_ = os.Remove(f.Name()) // the error is said already
		}
	}
	if err != nil {
		return failf(exitError, "session_file", "cannot keep the session in %s: %s", path, plain(err))
	}
	return nil
}

// forgetSession removes the session file.
func (e *env) forgetSession() error {
	if err := os.Remove(string(e.sessionFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failf(exitError, "session_file", "cannot remove the session file %s: %s", e.sessionFile, plain(err))
	}
	return nil
}

// ofServer reports whether a session is of the server that a client speaks to.
func (s savedSession) ofServer(c *client) bool {
	return strings.TrimSuffix(s.Server, "/") == strings.TrimSuffix(c.base.String(), "/")
}
