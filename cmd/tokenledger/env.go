package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"
	"github.com/tokenledger/tokenledger/events"
)

// env is the environment of a command: standard streams, environment variables
// and global flags.
type env struct {
	render.Printer
	input *term.Input
	vars  map[string]string // environment variable -> value

	dataDir, tokenFile, sessionFile, contextName stringFlag
	servers                                      serversFlag
	dataFlag, sessionFlag                        *pflag.Flag
	anyFileMode                                  bool
	timeout                                      durationFlag
	verbose                                      bool
	warned                                       []string // warnings that were written
	args                                         []string // of the program
	dataGiven                                    bool     // the data folder is not the default one
	fingerprint                                  fingerprintFlag

	log      *nodeLog              // of serve; nil for other commands
	jsonLog  bool                  // the log is JSON, and so is the last line of standard error
	api      *client.Client        // of ledger, once it was asked for
	problems map[*pflag.Flag]error // errors in the environment variables of flags
	began    bool                  // a command has begun; errors before that are usage errors
	retry    client.Retry
}

func newEnv(stdin io.Reader, stdout, stderr io.Writer, environ []string) *env {
	e := &env{
		Printer: render.Printer{
			Stdout: &render.ErrWriter{W: stdout},
			Stderr: stderr,
			Format: render.Table,
			Zone:   time.Local,
		},
		input: &term.Input{Stdin: stdin, Prompts: stderr},
		vars:  map[string]string{}, problems: map[*pflag.Flag]error{},
		timeout: durationFlag(30 * time.Second), retry: client.DefaultRetry,
	}
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		e.vars[name] = value
	}
	e.Width = term.Columns(stdout, e.vars["COLUMNS"])
	return e
}

// config says which servers commands ask, and with which credential.
func (e *env) config() *client.Config {
	named, err := e.context()
	if named.Name != "" && !changed(e.sessionFlag) && e.vars[setting{name: "session-file"}.variable()] == "" {
		e.sessionFile = stringFlag(e.configFile("sessions", named.Name))
	}
	return &client.Config{
		DataDir: string(e.dataDir), DataGiven: e.dataGiven, Servers: e.servers.list, Context: named, ContextErr: err,
		Fingerprint: string(e.fingerprint),
		TokenFile:   string(e.tokenFile), SessionFile: string(e.sessionFile), People: e.Format.Tabular(),
		Timeout: time.Duration(e.timeout), Retry: e.retry, Version: buildVersion().Version,
		Input: e.input, Note: e.Note, Trace: e.trace,
		AnyFileMode: e.anyFileMode, Warn: e.warn,
	}
}

// ledger returns a client of the API with the caller's credential.
func (e *env) ledger(ctx context.Context) (*client.Client, error) {
	if e.api != nil {
		return e.api, nil // standard input, which may have the token, is read once
	}
	c, err := e.config().Ledger(ctx)
	if err == nil {
		e.api = c
		e.trace("%s", c.Description())
	}
	return c, err
}

// person returns a client of the API with the session of login.
func (e *env) person(ctx context.Context) (*client.Client, error) { return e.config().Person(ctx) }

// warn writes a warning, whatever the output format, once in a command.
func (e *env) warn(format string, args ...any) {
	text := render.Escape(fmt.Sprintf(format, args...))
	if !slices.Contains(e.warned, text) {
		e.warned = append(e.warned, text)
		if e.Format.Machine() {
			text = failureJSON(exit.Failf(exit.OK, "warning", "%s", text))
		}
		_, _ = fmt.Fprintf(e.Stderr, "%s\n", text)
	}
}

// trace writes a line under --verbose.
func (e *env) trace(format string, args ...any) {
	if e.verbose {
		_, _ = fmt.Fprintf(e.Stderr, "%s\n", render.Escape(fmt.Sprintf(format, args...)))
	}
}

// globalFlags declares the flags of every command.
func (e *env) globalFlags(flags *pflag.FlagSet) {
	e.dataDir = stringFlag(e.defaultDataDir())
	e.dataFlag = e.declare(flags, setting{name: "data", help: "data folder"}, &e.dataDir)
	e.declare(flags, setting{
		name: "server", help: "URL of the API; several, repeated or with commas, are tried in turn (default those of the context, " +
			"or else the node on the data folder, or else " + client.DefaultServer + ")",
	}, &e.servers)
	e.servers.given = false // flags replace the environment's
	e.declare(flags, setting{
		name: "context", help: "context to use (default the one of 'context use', unless --server or --data is given)",
	}, &e.contextName)
	e.declare(flags, setting{
		name: "server-fingerprint",
		help: "fingerprint of the server's certificate, which is then trusted without a certificate authority; of several servers, with commas between them; login keeps it for later commands",
	}, &e.fingerprint)
	e.declare(flags, setting{
		name: "token-file", help: "file with the secret of your own token, - for standard input (default the session of login, or else root.token in the data folder)",
	}, &e.tokenFile)
	e.sessionFile = stringFlag(e.configFile("session"))
	e.sessionFlag = e.declare(flags, setting{
		name: "session-file", help: "file with the session of login, which is used unless --token-file is given",
	}, &e.sessionFile)
	e.declare(flags, setting{name: "output", short: "o", help: "output format: table, wide, name, json, jsonl or yaml"}, &e.Format)
	flags.Var(&e.Query, "jq", "print only what this expression of jq selects from the JSON, as in .items[].id")
	e.declare(flags, setting{name: "timeout", help: "time limit of a request with all its retries"}, &e.timeout)
	insecure := e.declare(flags, setting{
		name: "allow-insecure-file-mode", help: "read tokens, sessions and keys also from files that other users can read; warns each time",
	}, (*boolFlag)(&e.anyFileMode))
	insecure.NoOptDefVal = "true"
	flags.BoolVarP(&e.verbose, "verbose", "v", false, "show the server, the credential and each request; for serve: log level debug")
}

// A setting is a flag and its help line. Its environment variable is TOKENLEDGER_
// and its name.
type setting struct {
	name, short, help string
}

func (s setting) variable() string {
	return "TOKENLEDGER_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// declare adds a flag. Its value comes from the command line, or else from the
// setting's environment variable, or else is what v holds now.
func (e *env) declare(flags *pflag.FlagSet, s setting, v pflag.Value) *pflag.Flag {
	f := flags.VarPF(v, s.name, s.short, s.help+" [$"+s.variable()+"]")
	value := e.vars[s.variable()]
	if value == "" {
		return f
	}
	if client.HoldsSecret(value) {
		e.problems[f] = exit.Failf(
			exit.Usage,
			"usage",
			"%s holds a token's secret, and every program that you start can read it there. Put the secret in a file, and "+
				"name the file with --token-file",
			s.variable(),
		)
		return f
	}
	if err := v.Set(value); err != nil {
		e.problems[f] = exit.Failf(exit.Usage, "usage", "%s: %s", s.variable(), err)
	}
	return f
}

// check returns the first error in the environment variables of a command's flags, or
// the first flag whose value is empty.
func (e *env) check(c *cobra.Command) (err error) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		switch {
		case err != nil:
		case !f.Changed:
			err = e.problems[f]
		case isEmpty(f):
			// A shell that expands an unset variable must not lose an account, a
			// constraint or a file.
			err = exit.Inputf("--%s is empty: give a value, or leave it out", f.Name)
		}
	})
	return err
}

// checkFormat checks that the output's format and the command go together.
func (e *env) checkFormat(c *cobra.Command) error {
	flags := c.Flags()
	given := func(names ...string) bool { return slices.ContainsFunc(names, flags.Changed) }
	switch {
	case given("jq") && given("output") && e.Format != render.JSON && e.Format != render.Lines:
		return exit.Inputf("--jq works on JSON: --output must be json or jsonl, not %s", e.Format.String())
	case e.Format == render.Name && flags.Lookup("secret-only") != nil &&
		!given("secret-only", "secret-file", "client-secret"):
		return exit.Inputf("--output name would lose the secret, which is shown only once. Use --output json, or " +
			"--secret-only")
	}
	return nil
}

// defaultDataDir returns the data folder if none is named, empty if there is no
// home folder.
func (e *env) defaultDataDir() string {
	if dir := e.vars["XDG_DATA_HOME"]; filepath.IsAbs(dir) { // others are to be ignored
		return filepath.Join(dir, "tokenledger")
	}
	if home := e.vars["HOME"]; filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "tokenledger")
	}
	return ""
}

// configFile returns a file of the user's configuration, empty if there is no home
// folder.
func (e *env) configFile(names ...string) string {
	if dir := e.vars["XDG_CONFIG_HOME"]; filepath.IsAbs(dir) { // others are to be ignored
		return filepath.Join(append([]string{dir, "tokenledger"}, names...)...)
	}
	if home := e.vars["HOME"]; filepath.IsAbs(home) {
		return filepath.Join(append([]string{home, ".config", "tokenledger"}, names...)...)
	}
	return ""
}

// context returns the context that the command uses: the one that it names, or else
// the current one, unless the command names a server or a data folder.
func (e *env) context() (client.Context, error) {
	name := string(e.contextName)
	if name == "" && (len(e.servers.list) > 0 || changed(e.dataFlag)) {
		return client.Context{}, nil
	}
	all, err := client.ReadContexts(e.contextsFile())
	if err != nil {
		return client.Context{}, err
	}
	if name == "" {
		name = all.Current
	}
	if name == "" {
		return client.Context{}, nil
	}
	return all.Get(name)
}

// changed reports whether a flag is on the command line.
func changed(f *pflag.Flag) bool { return f != nil && f.Changed }

func (e *env) contextsFile() string { return e.configFile("contexts.yaml") }

// refuseSecrets returns an error if an argument holds a secret. The error does not
// repeat the secret.
func (e *env) refuseSecrets(args []string) error {
	for i, arg := range args {
		if !client.HoldsSecret(arg) {
			continue
		}
		where := fmt.Sprintf("argument %d", i+1)
		if flag, _, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(flag, "-") && !client.HoldsSecret(flag) {
			where = render.Escape(flag)
		} else if i > 0 && strings.HasPrefix(args[i-1], "--") && !strings.Contains(args[i-1], "=") {
			where = "the value of " + render.Escape(args[i-1])
		}
		return exit.Failf(exit.Usage, "secret_in_arguments", "%s contains a token's secret, so nothing was done. "+
			"Other users see arguments (ps) and shells store them: treat the secret as leaked, and rotate or revoke its token. "+
			"Give secrets on standard input or in a file (--token-file)", where)
	}
	return nil
}

// prepare sets cobra up: messages go through [env.exit], and an unknown command in
// a group is an error.
func (e *env) prepare(root *cobra.Command, args []string) {
	if args == nil {
		args = []string{} // cobra takes nil for os.Args
	}
	root.SetArgs(args)
	root.SetIn(e.input.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if c.HasSubCommands() {
			// A command that does not exist has no flags: say the first.
			if words := wordsAfter(c, args); len(words) > 0 {
				return missingCommand(e, c, words)
			}
		}
		return usagef(c, "%s", flagError(c, err))
	})
	root.SetUsageFunc(usage)
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { help(c) })
	root.SetHelpCommand(newHelpCmd())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	e.prepareTree(root)
}

func (e *env) prepareTree(c *cobra.Command) {
	c.Flags().SortFlags = false // help lists them as declared
	for _, sub := range c.Commands() {
		e.prepareTree(sub)
	}
	switch action := c.RunE; {
	case action != nil:
		c.RunE = func(c *cobra.Command, args []string) error {
			if err := e.check(c); err != nil {
				return err
			}
			if err := e.checkFormat(c); err != nil {
				return err
			}
			e.began, e.dataGiven = true, given(e, c, "data")
			return action(c, args)
		}
	case c.Run == nil && c.HasSubCommands():
		c.Args = cobra.ArbitraryArgs // missingCommand refuses them
		c.RunE = func(c *cobra.Command, args []string) error { return missingCommand(e, c, args) }
	}
}

// wordsAfter returns the arguments after a command's name that are not flags.
func wordsAfter(c *cobra.Command, args []string) []string {
	words := slices.DeleteFunc(slices.Clone(args), func(s string) bool { return strings.HasPrefix(s, "-") })
	for p := c; p.HasParent() && len(words) > 0; p = p.Parent() {
		words = words[1:]
	}
	return words
}

// missingCommand returns the failure of a group's name without one of its commands.
func missingCommand(e *env, c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(c, "%s has no command %s%s", c.CommandPath(), events.Quote(args[0]), suggest(c, args[0]))
	}
	e.Note("%s", c.UsageString())
	return usagef(c, "%s needs a command, such as %[1]s %s", c.CommandPath(), c.Commands()[0].Name())
}

// flagError returns what is wrong with a flag, in the words of the program.
func flagError(c *cobra.Command, err error) string {
	var missing *pflag.NotExistError
	var empty *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	var number *strconv.NumError
	switch {
	case errors.As(err, &missing) && missing.GetSpecifiedShortnames() == "":
		return fmt.Sprintf("%s has no flag --%s", c.CommandPath(), missing.GetSpecifiedName())
	case errors.As(err, &empty) && empty.GetSpecifiedShortnames() == "":
		return fmt.Sprintf("--%s needs a value", empty.GetSpecifiedName())
	case errors.As(err, &invalid) && errors.As(err, &number):
		return fmt.Sprintf(
			"--%s: %s is not a %s",
			invalid.GetFlag().Name,
			events.Quote(invalid.GetValue()),
			wantedNumber(invalid.GetFlag()),
		)
	case errors.As(err, &invalid):
		return fmt.Sprintf(
			"--%s: %s, not %s",
			invalid.GetFlag().Name,
			exit.Text(invalid.Unwrap()),
			events.Quote(invalid.GetValue()),
		)
	}
	return exit.Text(err)
}

// wantedNumber returns what the value of a flag must be that is a number or a
// switch.
func wantedNumber(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "valid value: use the flag alone, or =true or =false"
	case "uint", "uint64":
		return "whole number of 0 or more"
	}
	return "whole number"
}
