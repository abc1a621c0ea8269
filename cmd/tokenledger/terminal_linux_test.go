package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

// Keys that a terminal takes for more than text.
const (
	ctrlC     = "\x03"
	ctrlD     = "\x04"
	ctrlH     = "\b"
	backspace = "\x7f"
)

// seat is the program on a terminal of its own, and the person in front of it.
// A shell leads the terminal's session. Without one the kernel would reset the
// terminal when the program ends, and hide what it left behind.
type seat struct {
	t      *testing.T
	keys   *os.File   // the person's side of the terminal
	screen *recording // what the terminal shows
	out    *recording // standard output
	errs   *recording // standard error, but for [seat.onScreen]
	before unix.Termios
	code   *os.File // on which the shell says how the program ended
	leave  func()   // ends the shell
	ended  bool     // the program has ended
}

// leader runs a program, reports how it ended, and waits for permission to end.
// A typed interrupt goes to the program.
const leader = `trap : INT; "$@" 3>&- 4<&-; echo $? >&3; exec 3>&-; read -r _ <&4 || :`

// sit starts the program on a terminal. Its output goes there too if the test
// wants it on the screen.
func sit(t *testing.T, onScreen bool, environ []string, args ...string) *seat {
	t.Helper()
	return sitBefore(t, 0, onScreen, environ, args...)
}

// sitBefore is sit on a terminal with a number of columns, 0 for unknown.
func sitBefore(t *testing.T, columns uint16, onScreen bool, environ []string, args ...string) *seat {
	t.Helper()
	keys, tty := openTerminal(t)
	setColumns(t, keys, columns)
	codeHere, codeThere := pipe(t)
	leaveThere, leaveHere := pipe(t)
	s := &seat{
		t: t, keys: keys, code: codeHere,
		screen: newRecording(), out: newRecording(), errs: newRecording(),
	}
	s.before = s.settings()
	if s.before.Lflag&unix.ECHO == 0 {
		t.Fatal("a new terminal has no echo")
	}

	cmd := exec.Command("sh", append([]string{"-c", leader, "sh", "tokenledger"}, args...)...)
	cmd.Env = environ
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, s.out, s.errs
	if onScreen {
		cmd.Stdout, cmd.Stderr = tty, tty
	}
	cmd.ExtraFiles = []*os.File{codeThere, leaveThere}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	err := cmd.Start()
	for _, f := range []*os.File{tty, codeThere, leaveThere} {
		_ = f.Close() // the shell has its own
	}
	if err != nil {
		t.Fatalf("start a shell at the terminal: %v", err)
	}
	shown := make(chan error, 1)
	go func() {
		_, err := io.Copy(s.screen, keys)
		shown <- err
	}()
	s.leave = sync.OnceFunc(func() {
		_ = leaveHere.Close()
		if err := cmd.Wait(); err != nil && s.ended {
			t.Errorf("the shell at the terminal: %v", err)
		}
		// The terminal was closed, which its other side reads as EIO.
		if err := <-shown; !errors.Is(err, unix.EIO) && s.ended {
			t.Errorf("the terminal's end reads as %v, want EIO", err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%q\nscreen: %q\nstandard output: %q\nstandard error: %q", args, s.screen, s.out, s.errs)
		}
		if !s.ended {
			_ = keys.Close() // hangs up on a program that still asks
		}
		s.leave()
		_ = keys.Close()
	})
	return s
}

// limitOf returns the time until which a test waits.
func limitOf(t *testing.T) time.Time {
	const toSpeak = 5 * time.Second // before the deadline ends all tests without a word about this one
	limit := time.Now().Add(patience)
	if end, ok := t.Deadline(); ok && end.Add(-toSpeak).Before(limit) {
		return end.Add(-toSpeak)
	}
	return limit
}

// openTerminal opens a pseudo-terminal and returns both sides.
func openTerminal(t *testing.T) (keys, tty *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("******** NOT TESTED: no terminal can be made here, /dev/ptmx: %v ********", err)
	}
	keys = os.NewFile(uintptr(fd), "/dev/ptmx") // closing it ends a Read
	t.Cleanup(func() { _ = keys.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatalf("unlock the terminal: %v", err)
	}
	// The other side, without its name, because /dev/pts may not be mounted.
	peer, _, failed := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if failed != 0 {
		t.Fatalf("open the terminal: %v", failed)
	}
	tty = os.NewFile(peer, "tty")
	t.Cleanup(func() { _ = tty.Close() })
	return keys, tty
}

func setColumns(t *testing.T, keys *os.File, columns uint16) {
	t.Helper()
	c, err := keys.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = c.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatalf("set the terminal's size: %v", err)
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// settings returns the terminal's settings.
func (s *seat) settings() unix.Termios {
	s.t.Helper()
	return settingsOf(s.t, s.keys)
}

func settingsOf(t *testing.T, f *os.File) (got unix.Termios) {
	t.Helper()
	c, err := f.SyscallConn() // Fd would make reads of it block
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = c.Control(func(fd uintptr) {
		var now *unix.Termios
		if now, failed = unix.IoctlGetTermios(int(fd), unix.TCGETS); failed == nil {
			got = *now
		}
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatalf("look at the terminal: %v", err)
	}
	return got
}

// types types a text.
func (s *seat) types(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.keys, text); err != nil {
		s.t.Fatalf("type at the terminal: %v", err)
	}
}

// asked waits until the program prompts on standard error with echo off.
func (s *seat) asked(prompt string) {
	s.t.Helper()
	s.errs.wait(s.t, prompt)
	if s.settings().Lflag&unix.ECHO != 0 {
		s.t.Fatalf("the terminal shows what is typed at %q", prompt)
	}
}

// answers waits for a prompt and types a line.
func (s *seat) answers(prompt, text string) {
	s.t.Helper()
	s.asked(prompt)
	s.types(text + "\n")
}

// ends waits until the program has ended. It must have the exit code, and leave
// the terminal's settings unchanged.
func (s *seat) ends(want exit.Code, says ...string) {
	s.t.Helper()
	_ = s.code.SetReadDeadline(limitOf(s.t))
	text, err := io.ReadAll(s.code)
	if err != nil {
		s.t.Fatalf("the program does not end: %v", err)
	}
	after := s.settings()
	s.ended = true
	s.leave()
	if code, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || code != int(want) {
		s.t.Errorf("exit code %q, want %d", text, want)
	}
	if after != s.before {
		s.t.Errorf("the terminal is left set as %+v, want %+v", after, s.before)
	}
	for _, part := range says {
		if !strings.Contains(s.errs.String()+s.screen.String(), part) {
			s.t.Errorf("the program does not say %q", part)
		}
	}
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// recording keeps what was written, and wakes waiters.
type recording struct {
	mu   sync.Mutex
	text []byte        // guarded by mu
	seen int           // how much of text was waited for; guarded by mu
	more chan struct{} // closed when more is written; guarded by mu
}

func newRecording() *recording { return &recording{more: make(chan struct{})} }

func (r *recording) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, b...)
	close(r.more)
	r.more = make(chan struct{})
	return len(b), nil
}

func (r *recording) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.text)
}

// next returns true if the text is in the output after the last match.
// Otherwise it returns a channel that is closed at the next write.
func (r *recording) next(text string) (bool, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := bytes.Index(r.text[r.seen:], []byte(text))
	if i >= 0 {
		r.seen += i + len(text)
	}
	return i >= 0, r.more
}

// wait waits until a text is written after that of the previous wait.
func (r *recording) wait(t *testing.T, text string) {
	t.Helper()
	late := time.NewTimer(time.Until(limitOf(t)))
	defer late.Stop()
	for {
		ok, more := r.next(text)
		if ok {
			return
		}
		select {
		case <-more:
		case <-late.C:
			t.Fatalf("%q does not come; there is %q", text, r)
		}
	}
}
