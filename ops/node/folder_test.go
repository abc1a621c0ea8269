package node_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/node"
)

// TestFolderOfOtherUser refuses data folders that another user can write or
// replace, and writes nothing there.
func TestFolderOfOtherUser(t *testing.T) {
	t.Parallel()
	const stranger = 12345
	for name, prepare := range map[string]func(above, dir string) error{
		"others may write it":         func(_, dir string) error { return os.Chmod(dir, 0o707) },
		"others may write it, sticky": func(_, dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		"others may replace it":       func(above, _ string) error { return os.Chmod(above, 0o777) },
		"a group may write it": func(_, dir string) error {
			return errors.Join(os.Chown(dir, -1, stranger), os.Chmod(dir, 0o770))
		},
		"it is another's":            func(_, dir string) error { return os.Chown(dir, stranger, -1) },
		"the one above is another's": func(above, _ string) error { return os.Chown(above, stranger, -1) },
	} {
		t.Run(name, func(t *testing.T) {
			above := filepath.Join(t.TempDir(), "above")
			dir := filepath.Join(above, "data")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := prepare(above, dir); errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
				t.Skip("only root can change the owner of a file") // CI runs as root
			} else if err != nil {
				t.Fatal(err)
			}
			_, err := node.New(node.Config{Data: dir})
			if !errors.Is(err, embedded.ErrFolder) {
				t.Errorf("New = %v, want ErrFolder", err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("the folder holds %v, %v; want nothing", left, err)
			}
		})
	}
	t.Run("sticky above", func(t *testing.T) {
		above := t.TempDir()
		if err := os.Chmod(above, 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		start(t, node.Config{Data: filepath.Join(above, "data")})
	})
}

// TestPlantedLinks starts on a folder in which another user has put links in place
// of the files that a start writes. The node follows none.
func TestPlantedLinks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lock", "root.token", "root.token.tmp", "name.tmp", "ledger.json.tmp"} {
		dir, target := t.TempDir(), filepath.Join(t.TempDir(), "target")
		if err := errors.Join(os.WriteFile(target, []byte("of another"), 0o600), os.Symlink(target, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
		n, err := node.New(node.Config{Data: dir, APIAddr: "127.0.0.1:0", VerifyAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0"})
		if err == nil {
			err = n.Run(t.Context())
		}
		if err == nil {
			t.Errorf("%s: the node ran", name)
		}
		if b, err := os.ReadFile(target); err != nil || string(b) != "of another" {
			t.Errorf("%s: the file behind the link is %q, %v", name, b, err)
		}
	}
	// It does not use a secret that others can read either.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "root.token"), []byte("tls_whatever\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n, err := node.New(node.Config{Data: dir, APIAddr: "127.0.0.1:0", VerifyAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0"})
	if err == nil {
		err = n.Run(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "can read it") {
		t.Errorf("a root.token that others may read: %v", err)
	}
}

// TestSocket asks a node by the socket in its folder, also if the path is longer
// than a socket's name may be. The socket is removed when the node stops.
func TestSocket(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"data", strings.Repeat("long", 40)} {
		dir := filepath.Join(t.TempDir(), name)
		n := start(t, node.Config{Data: dir})
		socket := node.SocketIn(dir)
		info, err := os.Lstat(socket)
		if err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Fatalf("the socket %q: %v, %v; want it for the owner alone", socket, info, err)
		}
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return node.DialSocket(ctx, socket) }}
		for path, want := range map[string]int{"/v1/policy": http.StatusUnauthorized, "/v1/verify": http.StatusMethodNotAllowed, "/openapi.json": http.StatusOK} {
			r, err := (&http.Client{Transport: transport}).Get("http://node" + path)
			if err != nil {
				t.Fatal(err)
			}
			if r.Body.Close(); r.StatusCode != want {
				t.Errorf("%s answers %d, want %d", path, r.StatusCode, want)
			}
		}
		transport.CloseIdleConnections()
		n.stop()
		if left := node.SocketIn(dir); left != "" {
			t.Errorf("%s still exists", left)
		}
	}
}
