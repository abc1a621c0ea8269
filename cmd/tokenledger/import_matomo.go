package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
)

func newImportCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: "import", Short: "Import tokens of another system",
		Example: `  tokenledger import matomo --config /var/www/matomo/config/config.ini.php --dry-run`,
	}
	c.AddCommand(newImportMatomoCmd(e))
	return c
}

// matomoFlags say what to import, and from where.
type matomoFlags struct {
	config, dump, dsnFile, saltFile, prefix, checkFile, saltOut string
	dsn                                                         stringFlag
	source                                                      string
	adopt                                                       []string
	dry, follow, keepDeleted                                    bool
	interval                                                    durationFlag
	unused                                                      durationFlag
	maxEnded                                                    int
}

func (f *matomoFlags) declare(e *env, flags *pflag.FlagSet) {
	flags.StringVar(&f.config, "config", "", "Matomo's config/config.ini.php: the database, the prefix of the tables and the salt")
	e.declare(flags, setting{
		name: "dsn", help: "database, as in user:password@tcp(host:3306)/matomo, in place of that of --config; " +
			"other programs can read arguments, so give a password in the variable or in --dsn-file",
	}, &f.dsn)
	flags.StringVar(&f.dsnFile, "dsn-file", "", "file that holds what --dsn takes")
	flags.StringVar(&f.dump, "dump", "", "dump of the database by mysqldump, in place of the database; - for standard input")
	flags.StringVar(&f.prefix, "table-prefix", "", "prefix of the tables (default that of --config)")
	allowEmpty(flags, "table-prefix") // an installation may have none
	flags.StringVar(&f.saltFile, "salt-file", "", "file that holds the salt alone, in place of that of --config")
	flags.StringVar(&f.checkFile, "check-token-file", "",
		"file that holds a token that works now, to check the salt by if Matomo's user anonymous was deleted")
	flags.StringVar(&f.saltOut, "write-salt", "", "write the salt to this new file, for --matomo-salt-file of the nodes")
	flags.StringVar(&f.source, "name", "matomo", "name of the installation, if you import from several")
	flags.StringSliceVar(&f.adopt, "adopt", nil,
		"logins of accounts that exist already and get the tokens of Matomo's users of the same name")
	flags.BoolVar(&f.dry, "dry-run", false, "change nothing, and show what would be imported")
	flags.Var(&f.unused, "unused-for", "list the tokens that were not used for this long (default 180d)")
	flags.BoolVar(&f.follow, "follow", false, "go on: poll for new and deleted tokens until interrupted")
	f.interval = durationFlag(time.Minute)
	flags.Var(&f.interval, "interval", "time between two polls of --follow")
	flags.BoolVar(&f.keepDeleted, "keep-deleted", false, "do not revoke imported tokens that Matomo no longer has")
	flags.IntVar(&f.maxEnded, "max-ended", -1,
		"most tokens and accounts that one pass ends because Matomo no longer has them (default a tenth of those that "+
			"were imported, and 5 at least, but never all)")
}

func newImportMatomoCmd(e *env) *cobra.Command {
	var f matomoFlags
	c := &cobra.Command{
		Use: "matomo", Short: "Import users, access and tokens of Matomo", Args: takes(),
		Long: `Imports the users, their access to sites and their tokens from Matomo's database, or
from a dump of it. Clients keep their tokens: the ledger stores the hashes that
Matomo stores, and each node checks them with Matomo's salt (serve
--matomo-salt-file). The salt is used here to check that it fits the table, and for
the plain tokens of Matomo 2 and 3. It is never sent to the ledger.

A user becomes an account with a grant for each role and capability; a superuser
gets superuser. A token inherits the rights of its account until you narrow it; one
with an access level gets that level. Left out, and listed, are: the user anonymous,
Matomo's own tokens, expired tokens, and access to deleted sites.

It is safe to interrupt and to repeat. A repeated import adds what is new, sets the
grants of imported accounts to what Matomo says, narrows tokens that Matomo has
narrowed, and revokes those that Matomo no longer has. A token that was revoked or
narrowed in the ledger stays so. An account that the import did not create is never
used, unless --adopt names it. All of Matomo 2 to 6 is read; the database is not
changed.`,
		Example: `  tokenledger import matomo --config config.ini.php --dry-run
  tokenledger import matomo --config config.ini.php --write-salt ./matomo-salt
  tokenledger import matomo --config config.ini.php --follow --interval 30s
  mysqldump matomo | tokenledger import matomo --config config.ini.php --dump -`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(c); err != nil {
				return err
			}
			return e.importMatomo(c.Context(), &f)
		},
	}
	f.declare(e, c.Flags())
	return c
}

// check reports flags that do not go together.
func (f *matomoFlags) check(c *cobra.Command) error {
	switch {
	case f.config == "" && (f.saltFile == "" || f.dump == "" && f.dsn == "" && f.dsnFile == ""):
		return usagef(c, "name Matomo's config.ini.php with --config, or give --salt-file with --dsn, --dsn-file or --dump")
	case f.dump != "" && (f.dsnFile != "" || c.Flags().Changed("dsn")):
		return exit.Inputf("--dump and --dsn cannot be used together")
	case f.dsnFile != "" && c.Flags().Changed("dsn"):
		return exit.Inputf("--dsn and --dsn-file cannot be used together")
	case f.dump != "" && f.follow:
		return exit.Inputf("--follow needs the database: a dump does not change")
	case f.dry && f.follow:
		return exit.Inputf("--dry-run and --follow cannot be used together")
	case f.dry && f.saltOut != "":
		return exit.Inputf("--dry-run and --write-salt cannot be used together")
	case c.Flags().Changed("max-ended") && f.maxEnded < 0:
		return exit.Inputf("--max-ended: must not be negative")
	}
	if err := events.CheckSource(f.source); err != nil {
		return exit.Inputf("--name: %s", err)
	}
	if f.prefix != "" {
		if err := matomo.CheckPrefix(f.prefix); err != nil {
			return exit.Inputf("--table-prefix: %s", err)
		}
	}
	return nil
}

// installation is a Matomo installation that can be read.
type installation struct {
	prefix   string
	salt     events.MatomoSalt
	saltText string
	token    string // that works now; empty for none
	dsn      matomo.DSN
	dump     string // its file; empty for the database
}

// open reads the files that the flags name.
func (f *matomoFlags) open(e *env) (*installation, error) {
	in := &installation{prefix: f.prefix, dump: f.dump}
	var config *matomo.Config
	if f.config != "" {
		text, err := readSmall("--config", f.config)
		if err != nil {
			return nil, err
		}
		if config, err = matomo.ParseConfig(text); err != nil {
			return nil, exit.Inputf("--config %s: %s", f.config, err)
		}
		if in.prefix == "" {
			in.prefix = config.Prefix
		}
		in.saltText, in.salt = config.SaltText(), config.Salt
	}
	if f.saltFile != "" {
		text, err := readSmall("--salt-file", f.saltFile)
		if err != nil {
			return nil, err
		}
		salts, err := events.ParseMatomoSalts(text)
		if err != nil || len(salts) != 1 {
			return nil, exit.Inputf("--salt-file %s: want one line with the salt, or \"\" for an empty one", f.saltFile)
		}
		in.salt, in.saltText = salts[0], strings.Trim(string(text), "\r\n")
	} else if config != nil && !config.HasSalt {
		return nil, exit.Inputf("--config %s: [General] has no salt; give --salt-file, which holds \"\" if Matomo has none", f.config)
	}
	if f.checkFile != "" {
		text, err := readSmall("--check-token-file", f.checkFile)
		if err != nil {
			return nil, err
		}
		if in.token = strings.TrimSpace(string(text)); !events.IsMatomoShape(in.token) {
			return nil, exit.Inputf("--check-token-file %s: it does not hold one Matomo token, 32 hexadecimal characters",
				f.checkFile)
		}
	}
	if f.dump != "" {
		return in, nil
	}
	return in, f.findDSN(in, config)
}

// findDSN finds the database: that of --dsn, of --dsn-file or of --config.
func (f *matomoFlags) findDSN(in *installation, config *matomo.Config) (err error) {
	text, name := string(f.dsn), "--dsn"
	if f.dsnFile != "" {
		b, err := readSmall("--dsn-file", f.dsnFile)
		if err != nil {
			return err
		}
		text, name = string(b), "--dsn-file "+f.dsnFile
	}
	if text != "" {
		in.dsn, err = matomo.ParseDSN(text)
	} else {
		name = "--config " + f.config
		in.dsn, err = config.DSN()
	}
	if err != nil {
		return exit.Inputf("%s: %s", name, err)
	}
	return nil
}

// readSmall reads a file of settings.
func readSmall(flag, path string) ([]byte, error) {
	const limit = 1 << 20
	file, err := os.Open(path)
	if err != nil {
		return nil, exit.Inputf("%s %s: %s", flag, path, exit.Cause(err, path))
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, limit+1))
	switch {
	case err != nil:
		return nil, exit.Inputf("%s %s: %s", flag, path, exit.Cause(err, path))
	case len(b) > limit:
		return nil, exit.Inputf("%s %s: it has more than 1 MiB", flag, path)
	}
	return b, nil
}

// read reads the installation, and checks the salt.
func (in *installation) read(ctx context.Context, e *env) (*matomo.Source, error) {
	s, err := in.readTables(ctx, e)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, exit.Failf(exit.Error, "matomo", "%s. Nothing was imported", exit.Text(err))
	}
	switch err := s.UseSalt(in.salt, in.token); {
	case errors.Is(err, matomo.ErrNoCheck):
		return nil, exit.Failf(exit.Usage, "salt_not_checked", "%s. Nothing was imported", err)
	case err != nil:
		return nil, exit.Failf(exit.Usage, "wrong_salt", "%s. Nothing was imported", err)
	}
	return s, nil
}

func (in *installation) readTables(ctx context.Context, e *env) (*matomo.Source, error) {
	if in.dump == "" {
		return matomo.Database(ctx, in.dsn, in.prefix, time.Now())
	}
	var file io.Reader = e.input.Stdin
	if in.dump != "-" {
		f, err := os.Open(in.dump)
		if err != nil {
			return nil, fmt.Errorf("--dump %s: %s", in.dump, exit.Cause(err, in.dump))
		}
		defer f.Close()
		file = f
	}
	s, err := matomo.Dump(file, in.prefix, time.Now())
	if err != nil {
		return nil, fmt.Errorf("--dump %s: %w", in.dump, err)
	}
	return s, nil
}

// importMatomo imports once, and goes on with --follow.
func (e *env) importMatomo(ctx context.Context, f *matomoFlags) error {
	in, err := f.open(e)
	if err != nil {
		return err
	}
	ledger, err := e.ledger(ctx)
	if err != nil {
		return err
	}
	m := newMatomoImport(e, ledger, f)
	report, err := m.readAndPass(ctx, in)
	if err != nil {
		return err
	}
	if f.saltOut != "" {
		if err := in.writeSalt(f.saltOut); err != nil {
			return err
		}
	}
	if err := e.showImport(report); err != nil || !f.follow {
		return errors.Join(err, report.failure())
	}
	return m.follow(ctx, in)
}

// readAndPass reads the installation and imports it. What may be ended is listed
// before: a token that another import creates meanwhile, of a row that this one has
// not read, must not count as deleted.
func (m *matomoImport) readAndPass(ctx context.Context, in *installation) (*importReport, error) {
	if err := m.list(ctx); err != nil {
		return nil, err
	}
	source, err := in.read(ctx, m.env)
	if err != nil {
		return nil, err
	}
	return m.pass(ctx, source)
}

// writeSalt writes the file for the nodes. One with the same content stays.
func (in *installation) writeSalt(path string) error {
	text := in.saltText
	if text == "" {
		text = `""`
	}
	old, err := os.ReadFile(path)
	switch {
	case err == nil && strings.TrimRight(string(old), "\r\n") == strings.TrimRight(text, "\r\n"):
		return nil
	case err == nil:
		return exit.Inputf("--write-salt %s: the file exists and holds something else; a node takes several salts, one a line",
			path)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = file.WriteString(text + "\n")
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err != nil {
		return exit.Inputf("--write-salt %s: %s", path, exit.Cause(err, path))
	}
	return nil
}

// follow imports again and again, until it is interrupted. An error is reported, and
// the next pass comes at its time.
func (m *matomoImport) follow(ctx context.Context, in *installation) error {
	for {
		if !clock.Sleep(ctx, time.Duration(m.flags.interval)) {
			return ctx.Err()
		}
		report, err := m.readAndPass(ctx, in)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			m.env.warnAgain("%s", exit.Text(err))
			continue
		case report.changed():
			if err := m.env.showImport(report); err != nil {
				return err
			}
		}
		if err := report.failure(); err != nil {
			m.env.warnAgain("%s", exit.Text(err))
		}
	}
}

// warnAgain writes a warning each time, unlike warn.
func (e *env) warnAgain(format string, args ...any) {
	text := render.Escape(fmt.Sprintf(format, args...))
	if e.Format.Machine() {
		text = failureJSON(exit.Failf(exit.OK, "warning", "%s", text))
	}
	_, _ = fmt.Fprintf(e.Stderr, "%s\n", text)
}
