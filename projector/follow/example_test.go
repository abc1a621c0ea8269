package follow_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// printer prints messages and stops at the first reading.
type printer struct{ stop context.CancelFunc }

func (printer) Apply(_ context.Context, batch []events.Message) error {
	for _, m := range batch {
		fmt.Println(m.Position, m.Subject, string(m.Data))
	}
	return nil
}

func (p printer) Fresh(_ time.Duration, end events.Position) {
	fmt.Println("nothing is missing up to", end)
	p.stop()
}

func ExampleFollower_Run() {
	dir := must(os.MkdirTemp("", "follow"))
	defer os.RemoveAll(dir)
	srv := must(server.NewServer(&server.Options{
		ServerName: "log", DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, SyncAlways: true,
	}))
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	conn := must(nats.Connect("", nats.InProcessServer(srv), nats.MaxReconnects(-1)))
	defer conn.Close()

	ctx, cancel := context.WithCancel(context.Background())
	js := must(jetstream.New(conn))
	must(js.CreateStream(ctx, jetstream.StreamConfig{
		Name: events.StreamName, Subjects: []string{events.SubjectFilter}, AllowDirect: true,
		RePublish: &jetstream.RePublish{Source: events.SubjectFilter, Destination: events.TailFilter},
	}))
	must(js.Publish(ctx, "ledger.token.4k.created", []byte("{…}")))
	must(js.Publish(ctx, "ledger.token.4k.revoked", []byte("{…}")))

	f := must(follow.New(follow.Config{Conn: conn}))
	fmt.Println(f.Run(ctx, 0, nil, printer{cancel}))
	// Output:
	// 1 ledger.token.4k.created {…}
	// 2 ledger.token.4k.revoked {…}
	// nothing is missing up to 2
	// <nil>
}
