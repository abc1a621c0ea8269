package composetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

const (
	// asContainer is set in a process that is to become a container.
	asContainer = "TOKENLEDGER_COMPOSETEST_CONTAINER"
	// isolated is set in a process that has its own network and processes.
	isolated = "TOKENLEDGER_COMPOSETEST_ISOLATED"
)

// noContainers says why there can be none; empty where there can.
var noContainers string

// TestMain runs the tests in namespaces of their own, so that networks, mounts
// and processes are gone with them, and no port is taken by somebody else.
func TestMain(m *testing.M) {
	if os.Getenv(asContainer) != "" {
		fmt.Fprintln(os.Stderr, "container:", becomeContainer())
		os.Exit(125)
	}
	if os.Getenv(isolated) == "" {
		code, err := runIsolated()
		if err == nil {
			os.Exit(code)
		}
		noContainers = err.Error()
	} else if err := prepareIsolated(); err != nil {
		noContainers = err.Error()
	}
	os.Exit(m.Run())
}

// needContainers skips a test where there can be none, in a way that is not
// overlooked.
func needContainers(t testing.TB) {
	t.Helper()
	if noContainers != "" {
		t.Skipf("******** NOT TESTED: the services of docker-compose.yml do not run here. This needs root, the right to mount, ip (iproute2) and nsenter (util-linux): %s ********", noContainers)
	}
}

// runIsolated runs this program again and returns how that exited.
func runIsolated() (code int, err error) {
	if os.Getuid() != 0 {
		return 0, errors.New("this is not root")
	}
	for _, name := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(name); err != nil {
			return 0, err
		}
	}
	runtime.LockOSThread() // the child dies with this thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it ends, or has ended
		}
	}()
	_ = cmd.Wait() // its state says how it ended
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		code = 2
	}
	return code, nil
}

func prepareIsolated() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to this process: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return ip("link set lo up",
		"link add probe type bridge", "link del probe",
		"link add probe type veth peer name probe2", "link del probe")
}

// ip runs commands of iproute2's ip.
func ip(commands ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s (of %q)", err, strings.TrimSpace(string(out)), commands)
	}
	return nil
}
