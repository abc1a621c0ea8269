package embedded

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
)

func TestCreateStream(t *testing.T) {
	js := startKit(t).asLedger()
	ctx := testContext(t)
	if _, err := OpenStream(ctx, js); !errors.Is(err, ErrNoStream) {
		t.Errorf("OpenStream = %v, want %v", err, ErrNoStream)
	}
	before := time.Now()
	info, err := CreateStream(ctx, js, StreamLimits{MaxBytes: 1 << 28, Epoch: "first"})
	if err != nil {
		t.Fatal(err)
	}
	if info.Last != 0 || info.Epoch != "first" || info.Created.Before(before) || info.Created.After(time.Now()) {
		t.Errorf("CreateStream = %+v", info)
	}
	// Neither with other settings, nor with the same ones, for which the server
	// would report success.
	for _, epoch := range []string{"first", "second"} {
		if _, err := CreateStream(ctx, js, StreamLimits{MaxBytes: 1 << 28, Epoch: epoch}); !errors.Is(err, ErrStreamExists) {
			t.Errorf("CreateStream(%s) over the first = %v, want %v", epoch, err, ErrStreamExists)
		}
	}
	mustPublish(t, js, "ledger.token.aa.created", "one")
	opened, err := OpenStream(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	if want := (StreamInfo{Last: 1, Epoch: "first", Created: info.Created}); opened != want {
		t.Errorf("OpenStream = %+v, want %+v", opened, want)
	}
}

func TestStreamLimits(t *testing.T) {
	js := startKit(t).asLedger()
	ctx := testContext(t)
	_, err := CreateStream(ctx, js, StreamLimits{MaxBytes: -1, Replicas: 2})
	for _, want := range []string{"MaxBytes", "Replicas", "Epoch"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CreateStream = %v, lacks %q", err, want)
		}
	}
	// The fixture's server keeps less than the default.
	_, err = CreateStream(ctx, js, StreamLimits{Epoch: "first"})
	if err == nil || !strings.Contains(err.Error(), "raise MaxStore or lower MaxBytes") {
		t.Errorf("CreateStream over the server's limit = %v", err)
	}
	if DefaultMaxBytes >= DefaultMaxStore {
		t.Error("the default stream does not fit into the default server")
	}
}

// A full stream refuses appends and keeps what it has.
func TestFullStreamRefuses(t *testing.T) {
	js := startKit(t).asLedger()
	ctx := testContext(t)
	if _, err := CreateStream(ctx, js, StreamLimits{MaxBytes: 10 << 10, Epoch: "first"}); err != nil {
		t.Fatal(err)
	}
	var stored events.Position
	for {
		if _, err := js.Publish(ctx, "ledger.token.aa.created", make([]byte, 1<<10)); err != nil {
			var api *jetstream.APIError
			if !errors.As(err, &api) || api.ErrorCode != 10077 { // maximum bytes exceeded
				t.Fatal(err)
			}
			break
		}
		stored++
	}
	info, err := OpenStream(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	if info.Last != stored || stored == 0 {
		t.Errorf("the full stream holds %d of %d events", info.Last, stored)
	}
}

// Messages that would replace or expire another one are refused.
func TestHeadersThatRemoveAreRefused(t *testing.T) {
	js := startKit(t).asLedger()
	mustCreateStream(t, js)
	mustPublish(t, js, "ledger.token.aa.created", "one")
	for _, h := range [][2]string{
		{"Nats-Rollup", "all"},
		{"Nats-Rollup", "sub"},
		{"Nats-TTL", "1s"},
		{"Nats-Incr", "+1"},
		{"Nats-Schedule", "@at 2030-01-01T00:00:00Z"},
	} {
		m := newMsg("ledger.token.aa.revoked", h[0], h[1])
		if _, err := js.PublishMsg(testContext(t), m); err == nil {
			t.Errorf("an event with %s: %s was stored", h[0], h[1])
		}
	}
	if _, err := js.Publish(testContext(t), "ledger.token.aa.created", make([]byte, maxMsgSize+1)); err == nil {
		t.Error("an event above the limit was stored")
	}
	if info, err := OpenStream(testContext(t), js); err != nil || info.Last != 1 {
		t.Errorf("OpenStream = %+v, %v, want one event", info, err)
	}
	stream, err := js.Stream(testContext(t), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(testContext(t)); err == nil {
		t.Error("the stream was purged")
	}
	if err := stream.DeleteMsg(testContext(t), 1); err == nil {
		t.Error("an event was deleted")
	}
	off := settings(StreamLimits{MaxBytes: 1 << 28, Replicas: 1, Epoch: "first"})
	off.DenyDelete, off.DenyPurge = false, false
	if _, err := js.UpdateStream(testContext(t), off); err == nil {
		t.Error("deny_delete was switched off")
	}
}

// drifts are changes of the stream's settings, with the differences that OpenStream
// must report.
var drifts = []struct {
	name string
	edit func(*jetstream.StreamConfig)
	want []string // begins of the differences
}{
	{
		"storage", func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		[]string{`storage is "memory", want "file"`},
	},
	{
		"discard", func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		[]string{`discard is "old", want "new"`},
	},
	{
		"delete and purge", func(c *jetstream.StreamConfig) { c.DenyDelete, c.DenyPurge = false, false },
		[]string{"deny_delete is false, want true", "deny_purge is false, want true"},
	},
	{
		"direct get", func(c *jetstream.StreamConfig) { c.AllowDirect = false },
		[]string{"allow_direct is false, want true"},
	},
	{
		"atomic publish", func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false },
		[]string{"allow_atomic is false, want true"},
	},
	{
		"no tail", func(c *jetstream.StreamConfig) { c.RePublish = nil },
		[]string{`republish is null, want {"src":"ledger.\u003e","dest":"tail.ledger.\u003e"}`},
	},
	{
		"tail without events", func(c *jetstream.StreamConfig) { c.RePublish.HeadersOnly = true },
		[]string{"republish is "},
	},
	{
		"age", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		[]string{"max_age is 3600000000000, want 0"},
	},
	{
		"number", func(c *jetstream.StreamConfig) { c.MaxMsgs = 1000 },
		[]string{"max_msgs is 1000, want -1"},
	},
	{
		"number per subject", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1000; c.DiscardNewPerSubject = true },
		[]string{"discard_new_per_subject is true", "max_msgs_per_subject is 1000, want -1"},
	},
	{
		"no size", func(c *jetstream.StreamConfig) { c.MaxBytes = -1 },
		[]string{"max_bytes is not set"},
	},
	{
		"size of an event", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1 << 10 },
		[]string{"max_msg_size is 1024, want 540672"},
	},
	{
		"rollup", func(c *jetstream.StreamConfig) { c.AllowRollup, c.DenyPurge = true, false },
		[]string{"deny_purge is false", "allow_rollup_hdrs is true, want false"},
	},
	{
		"time to live", func(c *jetstream.StreamConfig) { c.AllowMsgTTL = true },
		[]string{"allow_msg_ttl is true, want false"},
	},
	{
		"counter", func(c *jetstream.StreamConfig) { c.AllowMsgCounter, c.Discard = true, jetstream.DiscardOld },
		[]string{"discard is ", "allow_msg_counter is true, want false"},
	},
	{
		"schedules", func(c *jetstream.StreamConfig) { c.AllowMsgSchedules, c.Discard = true, jetstream.DiscardOld },
		[]string{"discard is ", "allow_msg_schedules is true, want false", "allow_rollup_hdrs is true", "deny_purge is false"},
	},
	{
		"fast batches", func(c *jetstream.StreamConfig) { c.AllowBatchPublish = true },
		[]string{"allow_batched is true, want false"},
	},
	{
		"retention", func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy },
		[]string{`retention is "interest", want "limits"`},
	},
	{
		"no acknowledgement", func(c *jetstream.StreamConfig) { c.NoAck, c.AllowAtomicPublish = true, false },
		[]string{"no_ack is true, want false", "allow_atomic is "},
	},
	{
		"asynchronous", func(c *jetstream.StreamConfig) {
			c.PersistMode, c.AllowAtomicPublish = jetstream.AsyncPersistMode, false
		},
		[]string{"allow_atomic is ", `persist_mode is "async", want "default"`},
	},
	{
		"subjects", func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "other.>") },
		[]string{`subjects is ["ledger.\u003e","other.\u003e"]`},
	},
	{"subject transform", func(c *jetstream.StreamConfig) {
		c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "ledger.x.*", Destination: "ledger.y.{{wildcard(1)}}"}
	}, []string{"subject_transform is "}},
	{"mirror", func(c *jetstream.StreamConfig) {
		c.Mirror = &jetstream.StreamSource{Name: "OTHER"}
		c.Subjects, c.AllowAtomicPublish = nil, false
	}, []string{"mirror is ", "subjects is ", "allow_atomic is "}},
	{
		"sources", func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{Name: "OTHER"}} },
		[]string{"sources is "},
	},
	{
		"first position", func(c *jetstream.StreamConfig) { c.FirstSeq = 100 },
		[]string{"first_seq is 100, want 0"},
	},
	{
		"duplicate window", func(c *jetstream.StreamConfig) { c.Duplicates = time.Second },
		[]string{"duplicate_window is 1000000000, want 120000000000"},
	},
	{
		"epoch", func(c *jetstream.StreamConfig) { c.Metadata = nil },
		[]string{"metadata has no tokenledger-epoch"},
	},
	{"nothing that matters", func(c *jetstream.StreamConfig) {
		c.Description, c.MaxConsumers, c.Compression = "the log", 100, jetstream.S2Compression
		c.Metadata["owner"] = "operations"
	}, nil},
}

func TestOpenStreamNamesEachDrift(t *testing.T) {
	for _, tt := range drifts {
		t.Run(tt.name, func(t *testing.T) {
			js := startKit(t).asLedger()
			ctx := testContext(t)
			c := settings(StreamLimits{MaxBytes: 1 << 20, Replicas: 1, Epoch: "first"})
			tt.edit(&c)
			if _, err := js.CreateStream(ctx, c); err != nil {
				t.Fatal(err)
			}
			_, err := OpenStream(ctx, js)
			wantDrift(t, err, tt.want)
		})
	}
	t.Run("sealed", func(t *testing.T) {
		js := startKit(t).asLedger()
		ctx := testContext(t)
		mustCreateStream(t, js)
		c := settings(StreamLimits{MaxBytes: 1 << 28, Replicas: 1, Epoch: "first"})
		c.Sealed = true
		if _, err := js.UpdateStream(ctx, c); err != nil {
			t.Fatal(err)
		}
		_, err := OpenStream(ctx, js)
		wantDrift(t, err, []string{"sealed is true, want false"})
	})
}

func wantDrift(t *testing.T, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("OpenStream = %v, want nil", err)
		}
		return
	}
	if !errors.Is(err, ErrDrifted) {
		t.Fatalf("OpenStream = %v, want %v", err, ErrDrifted)
	}
	_, list, _ := strings.Cut(err.Error(), ErrDrifted.Error()+": ")
	diffs := strings.Split(list, "; ")
	for _, w := range want {
		if i := slices.IndexFunc(diffs, func(d string) bool { return strings.HasPrefix(d, w) }); i >= 0 {
			diffs = slices.Delete(diffs, i, i+1)
		} else {
			t.Errorf("%v\nlacks %q", err, w)
		}
	}
	if len(diffs) > 0 {
		t.Errorf("OpenStream names more than was changed: %q", diffs)
	}
}

func TestOpenStreamNamesDamage(t *testing.T) {
	limits := StreamLimits{MaxBytes: 1 << 28, Replicas: 1, Epoch: "first"}
	tests := []struct {
		name string
		// Changes a stream that holds the positions 1 to 5, and can be deleted
		// from and purged.
		ruin func(t *testing.T, js jetstream.JetStream, s jetstream.Stream) error
		want []string
	}{
		{"purged", func(t *testing.T, js jetstream.JetStream, s jetstream.Stream) error {
			return s.Purge(testContext(t))
		}, []string{"the first position is 6, want 1", "there are 0 messages up to position 5"}},
		{"first deleted", func(t *testing.T, js jetstream.JetStream, s jetstream.Stream) error {
			return s.DeleteMsg(testContext(t), 1)
		}, []string{"the first position is 2, want 1", "there are 4 messages up to position 5"}},
		{"middle deleted", func(t *testing.T, js jetstream.JetStream, s jetstream.Stream) error {
			return s.DeleteMsg(testContext(t), 3)
		}, []string{"1 positions after the first are missing", "there are 4 messages up to position 5"}},
		{"last deleted", func(t *testing.T, js jetstream.JetStream, s jetstream.Stream) error {
			return s.DeleteMsg(testContext(t), 5)
		}, []string{"there are 4 messages up to position 5"}},
		// Deny flags do not stop a client that may update the stream.
		{"trimmed by limits", func(t *testing.T, js jetstream.JetStream, s jetstream.Stream) error {
			if _, err := js.UpdateStream(testContext(t), settings(limits)); err != nil {
				return err
			}
			c := settings(limits)
			c.MaxMsgs, c.Discard = 2, jetstream.DiscardOld
			_, err := js.UpdateStream(testContext(t), c)
			return err
		}, []string{"the first position is 4, want 1", "there are 2 messages up to position 5"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			js := startKit(t).asLedger()
			open := settings(limits)
			open.DenyDelete, open.DenyPurge = false, false
			s, err := js.CreateStream(testContext(t), open)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				mustPublish(t, js, "ledger.token.aa.created", "x")
			}
			if err := tt.ruin(t, js, s); err != nil {
				t.Fatal(err)
			}
			if _, err := js.UpdateStream(testContext(t), settings(limits)); err != nil {
				t.Fatal(err)
			}
			_, err = OpenStream(testContext(t), js)
			wantDamage(t, err, tt.want)
		})
	}
}

func wantDamage(t *testing.T, err error, want []string) {
	t.Helper()
	if !errors.Is(err, ErrDamaged) {
		t.Fatalf("OpenStream = %v, want %v", err, ErrDamaged)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v\nlacks %q", err, w)
		}
	}
}

// TestDamagedBlockIsNotCut checks that a damaged block is refused, before the
// server would cut it off at the damage.
func TestDamagedBlockIsNotCut(t *testing.T) {
	k := startKit(t)
	js := k.asLedger()
	// With such a low limit, a block holds 32 kB.
	if _, err := CreateStream(testContext(t), js, StreamLimits{MaxBytes: 120_000, Epoch: "first"}); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		mustPublish(t, js, "ledger.token.aa.created", strings.Repeat("x", 200))
	}
	k.stop()
	msgs := filepath.Join(k.cfg.Dir, "jetstream", "LEDGER", "streams", "LEDGER", "msgs")
	// A crash, and a server that reads the blocks.
	if err := errors.Join(os.Remove(filepath.Join(msgs, "index.db")), breakSeal(k.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(msgs, "2.blk")); err != nil {
		t.Fatal(err)
	}
	block := filepath.Join(msgs, "1.blk")
	data, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(block, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(testContext(t), k.cfg); !errors.Is(err, ErrCopyDamaged) || !strings.Contains(err.Error(), "1.blk") {
		t.Errorf("Start = %v, want ErrCopyDamaged that names the block", err)
	}
	if after, err := os.ReadFile(block); err != nil || !bytes.Equal(after, data) {
		t.Errorf("the block was changed: %d bytes, and %d before, %v", len(after), len(data), err)
	}
}
