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
// A port can be anybody's: after a crash another user's program may have it, and
// would be sent the secret in root.token. Only who may write the folder makes a
// socket there, and that is its owner.

// SocketIn returns the name of the socket in a data folder, empty where there is
// none. It may be one that a process has left which died.
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

// listenSocket opens the socket of a data folder. A socket that is there was left
// by a process that died.
func listenSocket(dir *datadir.Dir) (net.Listener, error) {
	removeSocket(dir.Path())
	// It is made in a folder of its own, so that nobody connects before its mode is
	// set, and then moved.
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
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the name is another then
	if err := errors.Join(os.Chmod(name, 0o600), os.Rename(name, dir.File(datadir.Socket))); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeSocket removes the socket, and nothing else by that name.
func removeSocket(data string) {
	if name := SocketIn(data); name != "" {
		_ = os.Remove(name) // where it stays, the next one takes its place
	}
}

// longestSocket is the longest name that a socket has on every system, in bytes.
const longestSocket = 103

// shortName returns a name of a socket that is short enough for the system, which
// is good until done is called.
func shortName(name string) (short string, done func(), err error) {
	if len(name) <= longestSocket {
		return name, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf(
			"the name of the socket %s has more than %d bytes; choose a shorter data folder",
			name,
			longestSocket,
		)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(name)), func() { _ = dir.Close() }, nil
}

// local serves programs on this machine: commands and checks, of a node that has
// them. A client by the socket has no address, and counts as one of this machine.
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
