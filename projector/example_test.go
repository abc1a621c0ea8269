package projector_test

import (
	"context"
	"fmt"
	"os"

	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
)

func Example() {
	dir, err := os.MkdirTemp("", "index")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	p, err := projector.Open(projector.Config{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()

	// A node takes the messages from the log; here they are made up.
	log := eventstest.NewLog(1)
	token, secret := log.Token(log.Account("view:site/*"), "view:site/3")
	log.Revoke(token)

	for _, m := range log.Messages {
		if err := p.Apply(context.Background(), log.Messages[m.Position-1:m.Position]); err != nil {
			fmt.Println(err)
			return
		}
		r, err := p.Lookup(secret.Digest())
		fmt.Println(p.Position(), r.Scopes, r.State == projector.SecretLive, err)
	}
	// Output:
	// 1 [] false not found
	// 2 [view:site/3] true <nil>
	// 3 [view:site/3] false <nil>
}
