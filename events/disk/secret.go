package disk

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
)

// A SecretRule says which files with secrets a program reads, by their modes. The
// zero rule accepts a file that only its owner can read, and a file of root's that
// root's own group or a group of this process can read. Kubernetes (fsGroup),
// systemd (LoadCredential) and Docker hand out secrets in such files.
type SecretRule struct {
	// AnyMode accepts every file, for file systems and mounts whose modes cannot be
	// changed.
	AnyMode bool
	// Warn receives each file that only AnyMode accepts. Nil discards them.
	Warn func(path string, exposed *ExposedError)
}

// ExposedError reports a file with a secret that others can read or write.
type ExposedError struct {
	Who  string // "every user"
	Can  string // "read" or "write"
	Mode fs.FileMode
}

func (e *ExposedError) Error() string {
	return fmt.Sprintf("%s can %s it (mode %04o)", e.Who, e.Can, e.Mode.Perm())
}

// Check returns an [*ExposedError] if the rule does not accept a file. On Windows
// the mode says nothing about who can read, and every file is accepted.
func (r SecretRule) Check(path string, info fs.FileInfo) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	exposed := exposure(info, processGroups())
	switch {
	case exposed == nil:
		return nil
	case r.AnyMode:
		if r.Warn != nil {
			r.Warn(path, exposed)
		}
		return nil
	}
	return exposed
}

// exposure returns who else can use a file, nil if no other user can.
func exposure(info fs.FileInfo, groups []int) *ExposedError {
	const groupRead, groupWrite, groupAll, otherRead, otherWrite, otherAll = 0o040, 0o020, 0o070, 0o004, 0o002, 0o007
	mode := info.Mode().Perm()
	exposed := func(who, can string) *ExposedError { return &ExposedError{Who: who, Can: can, Mode: mode} }
	uid, gid := Owner(info)
	switch {
	case mode&otherWrite != 0:
		return exposed("every user", "write")
	case mode&otherRead != 0:
		return exposed("every user", "read")
	case mode&otherAll != 0:
		return exposed("every user", "reach")
	case mode&groupWrite != 0:
		return exposed(fmt.Sprintf("group %d", gid), "write")
	case mode&groupAll == 0:
		return nil
	case uid == 0 && mode&groupAll == groupRead && (gid == 0 || slices.Contains(groups, gid)):
		// Root decided which group this is. If systemd lets one user read the file by
		// an access list, the mode shows that as a right of root's group.
		return nil
	}
	return exposed(fmt.Sprintf("group %d", gid), "read")
}

// processGroups returns the groups of this process.
func processGroups() []int {
	groups, err := os.Getgroups()
	if err != nil {
		groups = nil
	}
	return append(groups, os.Getegid())
}
