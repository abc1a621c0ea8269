package verifier_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/verifier"
)

// given is a lease for the example. A node has a lease.Keeper.
type given struct {
	left  time.Duration
	least events.Position
}

func (g *given) Valid() (int64, bool)         { return 0, g.left > 0 }
func (g *given) Remaining() time.Duration     { return g.left }
func (g *given) MinPosition() events.Position { return g.least }

// A verifier answers from an index that follows a log. Here the log has three
// events.
func ExampleVerifier_Check() {
	dir, err := os.MkdirTemp("", "index")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	index, err := projector.Open(projector.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = index.Close() }()
	lease := new(given)
	v, err := verifier.New(verifier.Config{Index: index, Lease: lease})
	if err != nil {
		log.Fatal(err)
	}

	events3 := eventstest.NewLog(1)
	id, secret := events3.Token(events3.Account("admin:site/*"), "view:site/3")
	events3.Revoke(id)

	check := func(need string) {
		d := v.Check(secret.Reveal(), verifier.Request{Need: []events.Scope{events.MustScope(need)}})
		fmt.Printf("at %d, %s: %s\n", d.Position, need, d.Reason)
	}
	apply := func(messages []events.Message) {
		if err := index.Apply(context.Background(), messages); err != nil {
			log.Fatal(err)
		}
		lease.left, lease.least = time.Minute, index.Position()
	}
	check("view:site/3")
	apply(events3.Messages[:2])
	check("view:site/3")
	check("write:site/3")
	apply(events3.Messages[2:])
	check("view:site/3")
	// Output:
	// at 0, view:site/3: unavailable
	// at 2, view:site/3: allowed
	// at 2, write:site/3: insufficient_scope
	// at 3, view:site/3: revoked
}
