package bench

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// procAttr runs a program as a user, and kills it if this process dies. The
// program has its own process group, so that an interrupt at the terminal only
// reaches it through [server.stop].
func procAttr(as user) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if as.set {
		a.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
	return a
}

// processorTime returns the processor time of this process and of others.
func processorTime(others []int) time.Duration {
	var self unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &self); err != nil {
		return 0
	}
	total := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	for _, pid := range others {
		if f := statOf(pid); len(f) > 13 {
			const tick = 10 * time.Millisecond // USER_HZ is 100 everywhere
			user, _ := strconv.Atoi(string(f[11]))
			system, _ := strconv.Atoi(string(f[12]))
			total += time.Duration(user+system) * tick
		}
	}
	return total
}

// statOf returns the fields of /proc/PID/stat after the program's name, which
// may contain spaces: the state, the parent, and from the eleventh on the times.
func statOf(pid int) [][]byte {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil
	}
	return bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
}

// family returns a process and its children.
func family(pid int) []int {
	out := []int{pid}
	entries, _ := os.ReadDir("/proc") // without it there are no children
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f := statOf(child); len(f) > 1 && string(f[1]) == strconv.Itoa(pid) {
			out = append(out, child)
		}
	}
	return out
}

// residentBytes returns the memory of this process without mapped files, which
// the system may drop.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == "RssAnon:" {
			kib, _ := strconv.ParseInt(string(f[1]), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// allocated returns how many bytes a file has on disk.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// stolen returns the processor time since the start of the machine, and the part
// that other machines on the same hardware used (proc_stat(5)).
func stolen() (all, others float64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	first, _, _ := bytes.Cut(b, []byte("\n"))
	f := bytes.Fields(first)
	for i := 1; i < len(f) && i <= 8; i++ { // the later fields are included in the first two
		n, _ := strconv.ParseFloat(string(f[i]), 64)
		all += n
		if i == 8 {
			others = n
		}
	}
	return all, others
}

// machine describes this machine.
func machine() Machine {
	m := baseMachine()
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range bytes.Lines(b) {
			if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(name)) == "model name" {
				m.Processor = string(bytes.TrimSpace(value))
				break
			}
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryGiB = float64(uint64(info.Totalram)*uint64(info.Unit)) / (1 << 30)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.System = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	return m
}
