package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ops/node"
)

// env is what a command works with: the world outside, and what the global
// flags say.
type env struct {
	stdin  io.Reader
	stdout *sink
	stderr io.Writer
	vars   map[string]string // environment variable -> value
	zone   *time.Location    // of times in tables

	dataDir   text
	server    text
	tokenFile text
	// sessionFile keeps the session of login; lines is standard input, once a
	// line of it was read.
	sessionFile text
	lines       *bufio.Reader
	output      format
	timeout     span
	verbose     bool

	problems map[*pflag.Flag]error // what is wrong with their environment variables
	began    bool                  // a command has begun; what went wrong before is usage
	retry    retry
}

func newEnv(stdin io.Reader, stdout, stderr io.Writer, environ []string) *env {
	e := &env{
		stdin: stdin, stdout: &sink{w: stdout}, stderr: stderr, vars: map[string]string{}, problems: map[*pflag.Flag]error{},
		zone: time.Local, output: asTable, timeout: span(30 * time.Second), retry: defaultRetry,
	}
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		e.vars[name] = value
	}
	return e
}

// globalFlags declares what every command takes.
func (e *env) globalFlags(flags *pflag.FlagSet) {
	e.dataDir = text(e.defaultDataDir())
	e.declare(flags, setting{name: "data", help: "data folder"}, &e.dataDir)
	e.declare(flags, setting{name: "server", help: "URL of the ledger's API; by default the one that runs on the data folder, else " + defaultServer}, &e.server)
	e.declare(flags, setting{name: "token-file", help: "file that holds the secret of your own token, - for standard input; by default root.token in the data folder"}, &e.tokenFile)
	e.sessionFile = text(e.defaultSessionFile())
	e.declare(flags, setting{name: "session-file", help: "file that holds the session of login, which is sent where there is no token"}, &e.sessionFile)
	e.declare(flags, setting{name: "output", short: "o", help: "form of the output: table, json, jsonl or yaml"}, &e.output)
	e.declare(flags, setting{name: "timeout", help: "longest that a request may take, with all its retries"}, &e.timeout)
	flags.BoolVarP(&e.verbose, "verbose", "v", false, "say what is sent where, and the ids of requests that failed")
}

// A setting is a flag and its help line. The environment variable that stands
// in for it is TOKENLEDGER_ and its name.
type setting struct {
	name, short, help string
}

func (s setting) variable() string {
	return "TOKENLEDGER_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// declare makes a flag whose value comes from the command line, else from the
// setting's environment variable, else is what v holds now.
func (e *env) declare(flags *pflag.FlagSet, s setting, v pflag.Value) *pflag.Flag {
	f := flags.VarPF(v, s.name, s.short, s.help+" [$"+s.variable()+"]")
	value := e.vars[s.variable()]
	if value == "" {
		return f
	}
	if holdsSecret(value) {
		e.problems[f] = failf(exitUsage, "usage", "%s holds a token's secret, which other programs that you start can read there; put it in a file and name that with --token-file", s.variable())
		return f
	}
	if err := v.Set(value); err != nil {
		e.problems[f] = failf(exitUsage, "usage", "%s: %s", s.variable(), err)
	}
	return f
}

// check returns what is wrong with the environment variables that stand in for
// a command's flags.
func (e *env) check(c *cobra.Command) (err error) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if err == nil && !f.Changed {
			err = e.problems[f]
		}
	})
	return err
}

// defaultDataDir returns the data folder where none is named, empty where there
// is no home to have it in.
func (e *env) defaultDataDir() string {
	if dir := e.vars["XDG_DATA_HOME"]; filepath.IsAbs(dir) { // others are to be ignored
		return filepath.Join(dir, "tokenledger")
	}
	if home := e.vars["HOME"]; filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "tokenledger")
	}
	return ""
}

// refuseSecrets returns an error where an argument holds a secret, which it
// does not repeat.
func (e *env) refuseSecrets(args []string) error {
	for i, arg := range args {
		if !holdsSecret(arg) {
			continue
		}
		where := fmt.Sprintf("argument %d", i+1)
		if flag, _, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(flag, "-") && !holdsSecret(flag) {
			where = clean(flag)
		} else if i > 0 && strings.HasPrefix(args[i-1], "--") && !strings.Contains(args[i-1], "=") {
			where = "the value of " + clean(args[i-1])
		}
		return failf(exitUsage, "secret_in_arguments", "%s is or holds a token's secret, so nothing was done. "+
			"Arguments are seen by others (ps) and kept by shells: treat it as leaked, and rotate or revoke its token. "+
			"Secrets are read from standard input or from --token-file", where)
	}
	return nil
}

// nearSecret matches a secret that was cut off or mistyped, whose checksum
// does not tell it any more. Most of it is still secret.
var nearSecret = regexp.MustCompile(`tl[usxi]_[0-9A-Za-z]{20}`)

// digest matches a run of hexadecimal characters that is longer than a secret
// of theirs, as in the names of folders.
var digest = regexp.MustCompile(`[0-9a-f]{33,}`)

// holdsSecret reports whether s holds something shaped like a secret.
func holdsSecret(s string) bool {
	return nearSecret.MatchString(s) || events.LooksSecret(digest.ReplaceAllString(s, " "))
}

// runFile is the file in the data folder in which a running node says where it
// listens.
const runFile = "run.json"

// running reads where the node on the data folder listens. The zero value says
// that none runs there.
func (e *env) running() (at node.Addresses, path string, err error) {
	if e.dataDir == "" {
		return at, "", nil
	}
	path = filepath.Join(string(e.dataDir), runFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return at, path, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &at)
	}
	if err != nil {
		return at, path, failf(exitError, "data", "cannot read where the node listens from %s: %s", path, plain(err))
	}
	return at, path, nil
}

// text is a flag's value that is text.
type text string

func (t *text) Set(s string) error { *t = text(s); return nil }
func (t *text) String() string     { return string(*t) }
func (*text) Type() string         { return "text" }

// span is a flag's value that is a length of time: "90d", or as Go has it.
type span time.Duration

func (d *span) Set(s string) error {
	got, err := api.ParseDuration(s)
	if err != nil {
		return errors.New(`want a length of time such as "30s", "36h" or "90d"`)
	}
	if got <= 0 {
		return errors.New("want a length of time above zero")
	}
	*d = span(got)
	return nil
}

func (d *span) String() string {
	if *d == 0 {
		return "" // help then names no default
	}
	return time.Duration(*d).String()
}
func (*span) Type() string { return "time" }

// prepare fills in what cobra leaves to its users: messages go through
// [env.exit], an unknown command in a group is an error, and help speaks of
// what there is.
func (e *env) prepare(root *cobra.Command, args []string) {
	if args == nil {
		args = []string{} // cobra takes nil for os.Args
	}
	root.SetArgs(args)
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if c.HasSubCommands() {
			// A command that does not exist has no flags: say the first.
			if words := wordsAfter(c, args); len(words) > 0 {
				return missingCommand(e, c, words)
			}
		}
		return usagef(c, "%s", plain(err))
	})
	root.SetUsageFunc(usage)
	root.SetHelpCommand(newHelpCmd())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	e.prepareTree(root)
}

func (e *env) prepareTree(c *cobra.Command) {
	for _, sub := range c.Commands() {
		e.prepareTree(sub)
	}
	switch action := c.RunE; {
	case action != nil:
		c.RunE = func(c *cobra.Command, args []string) error {
			if err := e.check(c); err != nil {
				return err
			}
			e.began = true
			return action(c, args)
		}
	case c.Run == nil && c.HasSubCommands():
		c.Args = cobra.ArbitraryArgs // which are to be refused in our words
		c.RunE = func(c *cobra.Command, args []string) error { return missingCommand(e, c, args) }
	}
}

// wordsAfter returns the arguments behind a command's name that are not flags.
func wordsAfter(c *cobra.Command, args []string) []string {
	words := slices.DeleteFunc(slices.Clone(args), func(s string) bool { return strings.HasPrefix(s, "-") })
	for p := c; p.HasParent() && len(words) > 0; p = p.Parent() {
		words = words[1:]
	}
	return words
}

// missingCommand refuses a group's name without one of its commands.
func missingCommand(e *env, c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(c, "%s has no command %s%s", c.CommandPath(), quote(args[0]), suggest(c, args[0]))
	}
	e.note("%s", c.UsageString())
	return usagef(c, "%s needs a command, such as %[1]s %s", c.CommandPath(), c.Commands()[0].Name())
}
