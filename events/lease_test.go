package events_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenledger/tokenledger/events"
)

func renewal() *events.Renewal {
	return &events.Renewal{
		Holder: events.Holder{Node: "verifier-1", Instance: "a1b2c3d4"}, Number: 7, Epoch: goldenEpoch, Joining: true,
		Lease: 30_000, Stale: map[string]events.Milliseconds{"track": 300_000},
		Index: events.Statement{Position: 1234, Digest: 0xfeedface}, Mark: events.Statement{Position: 1024, Digest: 1},
		Version: "v1.2.3",
	}
}

func barrier() *events.Barrier {
	return &events.Barrier{Epoch: goldenEpoch, Floor: 1234, Lease: 30_000, Ledger: "ledger-1"}
}

// The stored form of one version is readable by the next.
const (
	storedRenewal = `{"form":1,"node":"verifier-1","instance":"a1b2c3d4","number":7,"epoch":"` + goldenEpoch + `","joining":true,"lease_ms":30000,"stale_ms":{"track":300000},` +
		`"index":{"position":1234,"digest":"00000000feedface"},"mark":{"position":1024,"digest":"0000000000000001"},"version":"v1.2.3"}`
	storedBarrier = `{"form":1,"epoch":"` + goldenEpoch + `","floor":1234,"lease_ms":30000,"ledger":"ledger-1"}`
)

func TestLeaseMessages(t *testing.T) {
	b, err := renewal().Encode()
	if err != nil || string(b) != storedRenewal {
		t.Errorf("renewal = %s, %v; want %s", b, err, storedRenewal)
	}
	if b, err = barrier().Encode(); err != nil || string(b) != storedBarrier {
		t.Errorf("barrier = %s, %v; want %s", b, err, storedBarrier)
	}
	r, none, err := events.DecodeLease(events.LeaseMessage{Seq: 1, Subject: "lease.node.verifier-1", Data: []byte(storedRenewal)})
	if diff := cmp.Diff(renewal(), r); diff != "" || none != nil || err != nil {
		t.Errorf("DecodeLease = %v, %v; -want +got\n%s", none, err, diff)
	}
	no, back, err := events.DecodeLease(events.LeaseMessage{Seq: 2, Subject: "lease.barrier", Data: []byte(storedBarrier)})
	if diff := cmp.Diff(barrier(), back); diff != "" || no != nil || err != nil {
		t.Errorf("DecodeLease = %v, %v; -want +got\n%s", no, err, diff)
	}
	if got := events.InMilliseconds(1500*time.Microsecond + 30*time.Second); got != 30_001 || got.Duration() != 30001*time.Millisecond {
		t.Errorf("InMilliseconds = %d, %s", got, got.Duration())
	}
}

func TestBadLeaseMessages(t *testing.T) {
	const node, fence = "lease.node.verifier-1", "lease.barrier"
	for _, c := range []struct {
		name, subject string
		data          string
		want          error
	}{
		{"nothing", node, ``, events.ErrMalformed},
		{"not JSON", fence, `{`, events.ErrMalformed},
		{"no form", node, strings.Replace(storedRenewal, `"form":1,`, ``, 1), events.ErrUnknown},
		{"a newer form of renewal", node, strings.Replace(storedRenewal, `"form":1`, `"form":2`, 1), events.ErrUnknown},
		{"a newer form of barrier", fence, strings.Replace(storedBarrier, `"form":1`, `"form":2`, 1), events.ErrUnknown},
		{"another's subject", "lease.node.verifier-2", storedRenewal, events.ErrMalformed},
		{"a renewal for a barrier", fence, storedRenewal, events.ErrMalformed},
		{"a barrier for a renewal", node, storedBarrier, events.ErrMalformed},
		{"a subject of neither", "lease.other", storedRenewal, events.ErrMalformed},
		{"no name", "lease.node.", strings.Replace(storedRenewal, `"verifier-1"`, `""`, 1), events.ErrMalformed},
		{"a name with a dot", "lease.node.a.b", strings.Replace(storedRenewal, `"verifier-1"`, `"a.b"`, 1), events.ErrMalformed},
		{"no instance", node, strings.Replace(storedRenewal, `"a1b2c3d4"`, `""`, 1), events.ErrMalformed},
		{"number 0", node, strings.Replace(storedRenewal, `"number":7`, `"number":0`, 1), events.ErrMalformed},
		{"a lease past a day", node, strings.Replace(storedRenewal, `"lease_ms":30000`, `"lease_ms":86400001`, 1), events.ErrMalformed},
		{"a lease below nothing", node, strings.Replace(storedRenewal, `"lease_ms":30000`, `"lease_ms":-1`, 1), events.ErrMalformed},
		{"a digest cut short", node, strings.Replace(storedRenewal, `00000000feedface`, `feedface`, 1), events.ErrMalformed},
		{"stale for too long", node, strings.Replace(storedRenewal, `"track":300000`, `"track":999999999999`, 1), events.ErrMalformed},
		{"stale, not a permission", node, strings.Replace(storedRenewal, `"track":300000`, `"a b":1`, 1), events.ErrMalformed},
		{"no epoch", fence, strings.Replace(storedBarrier, goldenEpoch, ``, 1), events.ErrMalformed},
		{"no lease", fence, strings.Replace(storedBarrier, `"lease_ms":30000`, `"lease_ms":0`, 1), events.ErrMalformed},
		{"no ledger", fence, strings.Replace(storedBarrier, `"ledger-1"`, `""`, 1), events.ErrMalformed},
	} {
		r, b, err := events.DecodeLease(events.LeaseMessage{Seq: 9, Subject: c.subject, Data: []byte(c.data)})
		if r != nil || b != nil || !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), "lease message 9") {
			t.Errorf("%s: DecodeLease = %v, %v, %v; want %v", c.name, r, b, err, c.want)
		}
	}
	for _, bad := range []interface{ Encode() ([]byte, error) }{&events.Renewal{}, &events.Barrier{}} {
		if b, err := bad.Encode(); err == nil {
			t.Errorf("Encode = %s, want an error", b)
		}
	}
	// An unknown field is of another version.
	more := strings.Replace(storedBarrier, `{`, `{"later":[1],`, 1)
	if _, _, err := events.DecodeLease(events.LeaseMessage{Subject: fence, Data: []byte(more)}); err != nil {
		t.Errorf("with an unknown field: %v", err)
	}
}

func FuzzDecodeLease(f *testing.F) {
	f.Add("lease.node.verifier-1", []byte(storedRenewal))
	f.Add("lease.barrier", []byte(storedBarrier))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		r, b, err := events.DecodeLease(events.LeaseMessage{Seq: 1, Subject: subject, Data: data})
		switch {
		case err != nil:
			return
		case (r == nil) == (b == nil):
			t.Fatalf("both or neither: %v %v", r, b)
		case b != nil:
			again, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			_, back, err := events.DecodeLease(events.LeaseMessage{Subject: subject, Data: again})
			if err != nil || !reflect.DeepEqual(back, b) {
				t.Fatalf("%+v became %+v, %v", b, back, err)
			}
		default:
			again, err := r.Encode()
			if err != nil || !json.Valid(again) {
				t.Fatal(err)
			}
			if back, _, err := events.DecodeLease(events.LeaseMessage{Subject: subject, Data: again}); err != nil || back.Number != r.Number || back.Index != r.Index {
				t.Fatalf("%+v became %+v, %v", r, back, err)
			}
		}
	})
}
