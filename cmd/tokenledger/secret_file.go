package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events/disk"
)

// secretFile is a new file for a secret that a command makes. The file is created,
// with room for the secret, before the command is sent: a file that cannot be
// written must not cost a secret.
type secretFile struct {
	flag string // its name, without dashes
	path string // empty for none
	file *os.File
	kept bool // the secret is in it
}

// secretOutput says where a command puts the secret that it makes: on standard
// output with the rest, there alone, or in a file.
type secretOutput struct {
	only bool
	file *secretFile
}

func (o *secretOutput) declare(flags *pflag.FlagSet) {
	flags.BoolVar(&o.only, "secret-only", false, "print only the secret on standard output, whatever --output says")
	group(flags, groupSecret, "secret-only")
	o.file = &secretFile{}
	o.file.declare(flags, "secret-file", "the secret")
}

func (o *secretOutput) check() error {
	if o.only && o.file.given() {
		return exit.Inputf("--secret-only and --secret-file cannot be used together")
	}
	return nil
}

// open creates the file, if one is named.
func (o *secretOutput) open() error { return o.file.open() }

// secretRoom is more than any secret or list of recovery codes has, in bytes.
const secretRoom = 1 << 10

func (s *secretFile) declare(flags *pflag.FlagSet, name, what string) {
	s.flag = name
	flags.StringVar(&s.path, name, "",
		"write "+what+" to this new file, which only you can read, and not to standard output")
	group(flags, groupSecret, name)
}

// given reports whether the flag was given.
func (s *secretFile) given() bool { return s.path != "" }

// open creates the file. A file that exists is never overwritten.
func (s *secretFile) open() error {
	if !s.given() {
		return nil
	}
	if s.path == "-" { // elsewhere it is a stream, and nobody looks for a file of that name
		return exit.Inputf("--%s needs the name of a file; without the flag the secret goes to standard output. For a file with "+
			"that name give ./-", s.flag)
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|disk.NoFollow, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return exit.Inputf("--%s: %s exists, and is never overwritten: name another file. Nothing was done", s.flag, s.path)
	case err != nil:
		return exit.Inputf("--%s: cannot create %s: %s. Nothing was done", s.flag, s.path, exit.Cause(err, s.path))
	}
	s.file = f
	// A full disk shows now.
	_, err = f.WriteString(strings.Repeat(" ", secretRoom-1) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		s.close()
		return exit.Inputf("--%s: cannot write %s: %s. Nothing was done", s.flag, s.path, exit.Cause(err, s.path))
	}
	return nil
}

// write puts the secret into the file and onto the disk.
func (s *secretFile) write(secret string) error {
	_, err := s.file.WriteAt([]byte(secret+"\n"), 0)
	if err == nil {
		err = s.file.Truncate(int64(len(secret) + 1))
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err == nil {
		err = disk.SyncDir(filepath.Dir(s.path))
	}
	s.kept = err == nil
	return err
}

// close closes the file, and removes it if the secret is not in it.
func (s *secretFile) close() {
	if s.file == nil {
		return
	}
	_ = s.file.Close() // what was written has been synced
	if !s.kept {
		_ = os.Remove(s.path)
	}
	s.file = nil
}

// store writes the secret to the file. If that fails the secret goes to standard
// output, where it is not lost.
func (s *secretFile) store(e *env, secret string) error {
	err := s.write(secret)
	if err == nil {
		return nil
	}
	text := "cannot write the secret to " + s.path + ": " + exit.Cause(err, s.path) + ". It is on standard output instead"
	if e.Print([]byte(secret), "\n") != nil {
		text = "cannot write the secret to " + s.path + ", nor to standard output: " + exit.Cause(err, s.path) +
			". Create a new one"
	}
	return exit.Failf(exit.Error, "secret_file", "%s", text)
}

// answer returns an answer of the API for the output: without the secret, and with
// the name of its file.
func (s *secretFile) answer(body []byte, field string) ([]byte, error) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, err
	}
	delete(members, field)
	path, err := json.Marshal(s.path)
	if err != nil {
		return nil, err
	}
	members[strings.ReplaceAll(s.flag, "-", "_")] = path
	return render.Encode(members)
}
