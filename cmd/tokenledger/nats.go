package main

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
)

func newNATSCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "nats",
		Short: "Create keys and certificates for the nodes of a cluster",
	}
	c.AddCommand(newNATSInitCmd(e))
	return c
}

// issuedNode is a node with credentials, as printed. It holds no secret.
type issuedNode struct {
	embedded.Member
	Folder string `json:"folder"`
	New    bool   `json:"new"`
}

type issuedNodes struct {
	Items []issuedNode `json:"items"`
}

func newNATSInitCmd(e *env) *cobra.Command {
	var ledgers, verifiers []string
	c := &cobra.Command{
		Use:   "init DIR",
		Short: "Create a certificate authority, and credentials for each node",
		Long: `Creates in DIR the keys and certificates with which nodes authenticate each other:
a certificate authority (ca.crt, ca.key), the list of members (members.json), for
each node a folder nodes/NAME to copy to its machine, and nats.conf for NATS servers
of your own.

A ledger has the hosts at which others reach it, without ports. A verifier has only
a name; its key can renew its own lease and report in its own name. A node takes
its name from its folder.

Run the command again with more names to add nodes. It keeps existing keys and
certificates, and rewrites members.json and nats.conf. Copy members.json to the
folders of the ledgers; they reload it automatically.

Anyone with ca.key can issue credentials: do not copy DIR to the nodes.`,
		Example: `  tokenledger nats init ./nats --ledger l1=10.0.0.1 --ledger l2=10.0.0.2 \
    --ledger l3=10.0.0.3,l3.example.org --verifier v1 --verifier v2
  tokenledger nats init ./nats --verifier v3`,
		Args: takes("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			requests, err := initRequests(ledgers, verifiers)
			if err != nil {
				return usagef(c, "%s", exit.Text(err))
			}
			dir := args[0]
			before, _ := embedded.LoadMembers(filepath.Join(dir, "members.json")) // what is wrong with them, Issue says
			members, err := embedded.Issue(dir, requests)
			switch {
			case errors.Is(err, embedded.ErrIssued):
				return exit.Failf(exit.Conflict, "conflict", "%s", exit.Text(err))
			case errors.Is(err, embedded.ErrRequest):
				return usagef(c, "%s", exit.Text(err))
			case err != nil:
				return err
			}
			var out issuedNodes
			for i, m := range members {
				out.Items = append(out.Items, issuedNode{
					Member: m, Folder: filepath.Join(dir, "nodes", m.Name), New: i >= len(before),
				})
			}
			body, err := render.Encode(out)
			if err != nil {
				return err
			}
			return e.Show(body, func() {
				g := e.Grid("NAME", "ROLE", "HOSTS", "FOLDER", "NEW")
				for _, n := range out.Items {
					state := "no"
					if n.New {
						state = "yes"
					}
					g.Row(n.Name, string(n.Role), strings.Join(n.Hosts, ","), n.Folder, state)
				}
				g.End()
				switch {
				case len(members) == len(before):
					e.Note("all of them have credentials already; nothing changed")
				case len(before) > 0:
					e.Note(
						"copy %s to the folders of the ledgers; they reload it automatically",
						filepath.Join(dir, "members.json"),
					)
				default:
					e.Note("copy each folder to its node; do not copy %s to any of them", filepath.Join(dir, "ca.key"))
				}
			})
		},
	}
	flags := c.Flags()
	flags.StringArrayVar(&ledgers, "ledger", nil, "a ledger and its hosts: NAME=HOST[,HOST...]; repeat for more")
	flags.StringArrayVar(&verifiers, "verifier", nil, "name of a verifier; repeat for more")
	return c
}

// initRequests parses the flags of nats init.
func initRequests(ledgers, verifiers []string) ([]embedded.Request, error) {
	var requests []embedded.Request
	for _, l := range ledgers {
		name, hosts, ok := strings.Cut(l, "=")
		if !ok {
			return nil, errors.New("--ledger " + events.Quote(l) + ": must be NAME=HOST[,HOST...], as in l1=10.0.0.1")
		}
		requests = append(requests, embedded.Request{Name: name, Role: embedded.RoleLedger, Hosts: splitList(hosts)})
	}
	for _, v := range verifiers {
		requests = append(requests, embedded.Request{Name: v, Role: embedded.RoleVerifier})
	}
	if len(requests) == 0 {
		return nil, errors.New("name at least one node, with --ledger or --verifier")
	}
	return requests, nil
}
