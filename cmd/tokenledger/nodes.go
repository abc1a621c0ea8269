package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/ledger/api"
)

func newNodesCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the verifiers, and how far each has got", Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.do(c.Context(), request{method: http.MethodGet, path: []string{"v1", "nodes"}})
			if err != nil {
				return err
			}
			var got struct {
				Items []api.Node `json:"items"`
			}
			if err := json.Unmarshal(a.body, &got); err != nil {
				return err
			}
			if e.output == asLines {
				var raw page
				if err := json.Unmarshal(a.body, &raw); err != nil {
					return err
				}
				for _, item := range raw.Items {
					if err := e.show(item, nil); err != nil {
						return err
					}
				}
				return nil
			}
			return e.show(a.body, func() {
				g := e.grid("NAME", "READY", "POSITION", "LAG", "AGE", "VERSION", "ADDRESS", "HEARD", "WHY")
				for _, n := range got.Items {
					ready, age := "no", "-"
					if n.Ready {
						ready = "yes"
					}
					if n.AgeMS >= 0 {
						age = took(time.Duration(n.AgeMS) * time.Millisecond)
					}
					g.row(n.Name, ready, strconv.FormatUint(n.Position, 10), strconv.FormatUint(n.Lag, 10), age, n.Version, n.Address, e.when(n.HeardAt), n.Why)
				}
				g.end()
			})
		},
	}
}
