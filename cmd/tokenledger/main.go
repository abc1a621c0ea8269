// Command tokenledger is the ledger, its verifiers and their client in one
// program.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}

// run is the program. It reads and writes only what it is given, and files.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	return execute(ctx, newEnv(stdin, stdout, stderr, environ), args)
}

func execute(ctx context.Context, e *env, args []string) int {
	e.args = args
	root := newRootCmd(e)
	e.prepare(root, args)
	e.jsonLog = e.logsJSON(root, args)
	defer e.closeLog()
	err := e.refuseSecrets(args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	return e.exit(ctx, err)
}

func newRootCmd(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "tokenledger",
		Short: "API tokens for clusters of machines, in an event-sourced ledger",
		Long: `tokenledger keeps API tokens for clusters of machines. Every change to a token is
an event in one log, and every verifier answers checks from its own copy of it.`,
		Example: `  tokenledger demo
  tokenledger serve
  tokenledger token create --account shop --scope view:site/3`,
		Version: buildVersion().Version,
	}
	e.globalFlags(root.PersistentFlags())
	e.completeFlag(root, "context", e.contexts)
	e.completeFlag(root, "output", oneOf(render.Formats...))
	for _, g := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Tokens and accounts", []*cobra.Command{
			newTokenCmd(e), newAccountCmd(e), newPolicyCmd(e),
			newReceiptCmd(e), newVerifyCmd(e), newApplyCmd(e), newExportCmd(e), newImportCmd(e),
		}},
		{"Signing in", []*cobra.Command{
			newLoginCmd(e), newLogoutCmd(e), newWhoamiCmd(e), newAuthCmd(e), newContextCmd(e), newSessionCmd(e),
			newPasswordCmd(e), newSecondFactorCmd(e),
		}},
		{"Nodes", []*cobra.Command{
			newServeCmd(e), newGatewayCmd(e), newNodesCmd(e), newHealthCmd(e),
			newNATSCmd(e), newSnippetCmd(e), newDemoCmd(e),
		}},
	} {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.title
			root.AddCommand(c)
		}
	}
	root.AddCommand(newVersionCmd(e), newExitCodesTopic(), newTimesTopic())
	return root
}
