package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tokenledger/tokenledger/ops/datadir"
)

// Programs of the data folder's owner reach the node by a socket in it, api.sock.
// A port does not belong to a user: after a crash another user's program may
// listen on it and would receive the secret in root.token. Only the owner of the
// folder can create a socket there.

// SocketIn returns the name of the socket in a data folder, empty if there is none.
// The socket may be left from a process that crashed.
func SocketIn(data string) string {
	name := filepath.Join(data, datadir.Socket)
	if info, err := os.Lstat(name); err != nil || info.Mode()&os.ModeSocket == 0 {
		return ""
	}
	return name
}

// DialSocket connects to a node by its socket.
func DialSocket(ctx context.Context, name string) (net.Conn, error) {
	short, done, err := shortName(name)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", short)
	var at *net.OpError
	if errors.As(err, &at) {
		err = fmt.Errorf("%s: %w", name, at.Err)
	}
	return c, err
}

// listenSocket opens the socket of a data folder. An existing socket was left by a
// process that crashed.
func listenSocket(dir *datadir.Dir) (net.Listener, error) {
	removeSocket(dir.Path())
	// The socket is created in a private folder and moved when its mode is set, so
	// that no other user connects before.
	private := dir.File("." + datadir.Socket)
	if err := os.RemoveAll(private); err != nil {
		return nil, err
	}
	if err := os.Mkdir(private, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	name := filepath.Join(private, datadir.Socket)
	short, done, err := shortName(name)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.Listen("unix", short)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it was renamed then
	if err := errors.Join(os.Chmod(name, 0o600), os.Rename(name, dir.File(datadir.Socket))); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeSocket removes the socket, and nothing else by that name.
func removeSocket(data string) {
	if name := SocketIn(data); name != "" {
		_ = os.Remove(name) // if that fails, the next start replaces it
	}
}

// longestSocket is the maximum length of a socket's name on all systems, in bytes.
const longestSocket = 103

// shortName returns a name of a socket that is short enough for the system. It is
// valid until done is called.
func shortName(name string) (short string, done func(), err error) {
	if len(name) <= longestSocket {
		return name, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("the name of the socket %s has more than %d bytes; choose a shorter data folder",
			name, longestSocket)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(name)), func() { _ = dir.Close() }, nil
}

// local serves commands and checks to programs on this machine. Either may be nil.
// A client of the socket has no address and gets the one of this machine.
func local(commands, checks http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = "127.0.0.1:0"
		h := commands
		if strings.HasPrefix(r.URL.EscapedPath(), "/v1/verify") || h == nil {
			h = checks
		}
		if h == nil {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}
