package client

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
)

// A Context is a cluster that the user gave a name: its servers, and the names of
// the files with a credential for it. It holds no secret.
type Context struct {
	Name      string   `yaml:"-" json:"name"`
	Servers   []string `yaml:"servers" json:"servers"`
	Verifier  string   `yaml:"verifier,omitempty" json:"verifier,omitempty"`
	TokenFile string   `yaml:"token_file,omitempty" json:"token_file,omitempty"`
	// Fingerprint is that of the servers' certificates, with commas between several;
	// empty if a certificate authority vouches for them.
	Fingerprint string `yaml:"server_fingerprint,omitempty" json:"server_fingerprint,omitempty"`
}

// from returns how a server of the context is known, for messages.
func (c Context) from() string { return "context " + c.Name }

// CheckServer returns an error if a context cannot have a server.
func CheckServer(address string) error {
	_, err := parseServer(address, "the server "+address, DefaultServer)
	return err
}

// Contexts are the contexts of a user. They are kept in a file.
type Contexts struct {
	Path    string             `yaml:"-"`
	Current string             `yaml:"current,omitempty"` // empty for none
	All     map[string]Context `yaml:"contexts"`
}

// contextName is the form of names: they are part of a path.
var contextName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckContextName returns an error for a name that a context cannot have.
func CheckContextName(name string) error {
	if !contextName.MatchString(name) {
		return exit.Inputf("a context's name has 1 to 63 characters: a-z, 0-9, and . _ - after the first")
	}
	return nil
}

// ReadContexts reads the file with the contexts. There may be no such file.
func ReadContexts(path string) (Contexts, error) {
	all := Contexts{Path: path, All: map[string]Context{}}
	if path == "" {
		return all, nil
	}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return all, nil
	case err == nil:
		err = yaml.Unmarshal(b, &all)
	}
	var typed *yaml.TypeError
	if errors.As(err, &typed) { // its text repeats values
		err = errors.New("a value has the wrong type")
	}
	if err != nil {
		return all, exit.Failf(exit.Error, "contexts", "cannot read the contexts in %s: %s", path, exit.Cause(err, path))
	}
	if all.All == nil {
		all.All = map[string]Context{}
	}
	for name, c := range all.All {
		c.Name = name
		all.All[name] = c
	}
	return all, nil
}

// Names returns the names in order.
func (c Contexts) Names() []string { return slices.Sorted(maps.Keys(c.All)) }

// Get returns a context by its name.
func (c Contexts) Get(name string) (Context, error) {
	got, ok := c.All[name]
	if !ok {
		return got, exit.Failf(exit.NotFound, "no_context",
			"there is no context %s; 'tokenledger context list' lists them", events.Quote(name))
	}
	return got, nil
}

// Write stores the contexts. Only the user can read the file, which names servers and
// files.
func (c Contexts) Write() error {
	if c.Path == "" {
		return exit.Inputf("there is no home folder for the contexts; set $XDG_CONFIG_HOME")
	}
	b, err := yaml.Marshal(c)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(c.Path), 0o700)
	}
	if err == nil {
		err = disk.Replace(c.Path, b)
	}
	if err != nil {
		return exit.Failf(exit.Error, "contexts", "cannot write the contexts to %s: %s", c.Path, exit.Cause(err))
	}
	return nil
}
