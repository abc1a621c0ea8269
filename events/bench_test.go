package events_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

func BenchmarkShape(b *testing.B) {
	for what, s := range map[string]string{"good": goodSecret, "typing error": goodBody + "000000", "garbage": "garbage"} {
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				events.DefaultFormat.Shape(s)
			}
		})
	}
}

func BenchmarkDigestOf(b *testing.B) {
	for b.Loop() {
		events.DefaultFormat.DigestOf(goodSecret)
	}
}

func BenchmarkCovers(b *testing.B) {
	have, need := events.MustScope("write:site/*"), events.MustScope("view:site/3")
	for b.Loop() {
		events.Matomo.Covers(have, need)
	}
}

// BenchmarkDecode decodes the events of one token, and one event of every kind.
func BenchmarkDecode(b *testing.B) {
	for what, messages := range map[string][]events.Message{
		"life": eventstest.Lives(1).Messages[1:], "every kind": eventstest.History(1, 1000).Messages,
	} {
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := events.DecodeMessage(messages[i%len(messages)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	e := goldens["tokenledger.token.created.v1-constraints"]
	for b.Loop() {
		if _, err := events.Encode(e); err != nil {
			b.Fatal(err)
		}
	}
}
