package embedded_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/ledger/embedded"
)

// A ledger and a verifier in one process, without listeners.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "example")
	check(err)
	defer os.RemoveAll(dir)

	ledgerKey, err := embedded.LoadOrCreateKey(filepath.Join(dir, "ledger.key"))
	check(err)
	verifierKey, err := embedded.LoadOrCreateKey(filepath.Join(dir, "verifier.key"))
	check(err)

	server, err := embedded.Start(ctx, embedded.Config{
		Dir:         filepath.Join(dir, "log"),
		LedgerKey:   ledgerKey,
		VerifierKey: verifierKey.Public(),
	})
	check(err)
	defer server.Shutdown(ctx)

	ledger, err := server.Connect()
	check(err)
	js, err := jetstream.New(ledger)
	check(err)
	info, err := embedded.CreateStream(ctx, js, embedded.StreamLimits{Epoch: "01"})
	check(err)
	fmt.Println("created at position", info.Last)

	verifier, err := nats.Connect("", append(embedded.VerifierOptions(verifierKey), nats.InProcessServer(server))...)
	check(err)
	defer verifier.Close()
	tail, err := verifier.SubscribeSync("tail.ledger.>")
	check(err)
	check(verifier.FlushWithContext(ctx))

	_, err = js.Publish(ctx, "ledger.token.aa.revoked", []byte("{}"))
	check(err)
	event, err := tail.NextMsgWithContext(ctx)
	check(err)
	fmt.Println("position", event.Header.Get("Nats-Sequence"), "is", event.Header.Get("Nats-Subject"))

	_, err = embedded.CreateStream(ctx, js, embedded.StreamLimits{Epoch: "02"})
	fmt.Println(err)
	// Output:
	// created at position 0
	// position 1 is ledger.token.aa.revoked
	// create stream: stream LEDGER exists
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
