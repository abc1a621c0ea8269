package genesis

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Subjects of the questions and the answers. Verifiers can use neither. Answers
// have a prefix of their own, because ledgers may not publish to each other's
// inboxes.
const (
	subject        = "node.began"
	answersSubject = "node.began.answer."
)

// Answer answers other ledgers with the result of report. While known is false, or
// report fails, this ledger does not answer and counts as missing.
func Answer(conn *nats.Conn, report func() (r Report, known bool, err error)) (*nats.Subscription, error) {
	sub, err := conn.Subscribe(subject, func(m *nats.Msg) {
		r, known, err := report()
		if err != nil || !known {
			return
		}
		if b, err := json.Marshal(r); err == nil {
			_ = m.Respond(b) // a lost answer is asked for again
		}
	})
	if err != nil {
		return nil, fmt.Errorf("answer the questions of other ledgers: %w", err)
	}
	return sub, nil
}

// Ask asks all ledgers for their reports, and returns those that answered within
// a second: name -> report. It returns early once all members have answered.
func Ask(ctx context.Context, conn *nats.Conn, members int) (map[string]Report, error) {
	inbox := answersSubject + rand.Text()
	sub, err := conn.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	if err := conn.PublishRequest(subject, inbox, nil); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answers := map[string]Report{}
	for len(answers) < members {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			break // the others are missing
		}
		var r Report
		if json.Unmarshal(m.Data, &r) == nil && r.Name != "" {
			answers[r.Name] = r
		}
	}
	return answers, nil
}
