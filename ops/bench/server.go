package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// user is a system user. The zero value is the user of this process.
type user struct {
	set      bool
	uid, gid uint32
}

// unprivileged returns a user for programs that refuse to run as root, and gives
// that user the folder.
func unprivileged(dir string) (user, error) {
	if os.Getuid() != 0 {
		return user{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := osuser.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return user{}, err
		}
		return user{true, uint32(uid), uint32(gid)}, os.Chown(dir, int(uid), int(gid))
	}
	return user{}, errors.New("it may not run as root, and there is no user postgres or nobody")
}

// findProgram returns the first existing program of a list of names and path
// patterns. If several files match a pattern, it returns the last.
func findProgram(names ...string) (string, bool) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, true
		}
		if found, err := filepath.Glob(name); err == nil && len(found) > 0 {
			return found[len(found)-1], true
		}
	}
	return "", false
}

// runProgram runs a program to its end.
func runProgram(ctx context.Context, dir string, as user, path string, args ...string) error {
	c := exec.CommandContext(ctx, path, args...)
	c.Dir, c.SysProcAttr = dir, procAttr(as)
	c.Env = serverEnv()
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(path), err, lastLines(string(out)))
	}
	return nil
}

// serverEnv removes the settings of other servers from the environment.
func serverEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}

// server is a program that runs until it is stopped.
type server struct {
	name string
	cmd  *exec.Cmd
	out  string        // file with its output
	gone chan struct{} // closed after its end
}

// startServer starts a server, which dies with this process.
func startServer(dir string, as user, path string, args ...string) (*server, error) {
	s := &server{name: filepath.Base(path), out: filepath.Join(dir, "out"), gone: make(chan struct{})}
	out, err := os.Create(s.out)
	if err != nil {
		return nil, err
	}
	s.cmd = exec.Command(path, args...)
	s.cmd.Dir, s.cmd.Env, s.cmd.SysProcAttr = dir, serverEnv(), procAttr(as)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	err = s.cmd.Start()
	if err := errors.Join(err, out.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.gone)
	}()
	return s, nil
}

// The time limits of a server.
const (
	startTimeout = 3 * time.Minute
	stopTimeout  = 30 * time.Second
)

// await waits until reach returns nil.
func (s *server) await(ctx context.Context, reach func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := reach()
		if err == nil {
			return nil
		}
		select {
		case <-s.gone:
			return fmt.Errorf("%s ended (%s): %s", s.name, s.cmd.ProcessState, s.printed())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", s.name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *server) printed() string {
	b, _ := os.ReadFile(s.out) // without the output, the error has no detail
	return lastLines(string(b))
}

// lastLines returns the last few lines of a text in one line.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// stop ends the server. SIGINT ends PostgreSQL without waiting for its clients.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGINT) // it may have ended already
	select {
	case <-s.gone:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = s.cmd.Process.Kill()
	<-s.gone
	return fmt.Errorf("%s did not end within %s and was killed", s.name, stopTimeout)
}

// processes returns the server's process, and those that it has started.
func (s *server) processes() []int { return family(s.cmd.Process.Pid) }
