package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/node"
)

// three is three ledgers that keep one log.
type three struct {
	t       *testing.T
	configs map[string]node.Config // name -> configuration
	nodes   map[string]*going
}

// threeNames are sorted: the first one begins the log.
var threeNames = []string{"l1", "l2", "l3"}

// eventually asks until the ledger can answer: while a log is without a leader
// it cannot. An account that is there already was made by an earlier try.
func (g *going) eventually(method, path string, body any) {
	g.t.Helper()
	var status int
	var answer m
	defer func() {
		if status != http.StatusCreated && status != http.StatusConflict {
			g.t.Logf("the last answer is %d: %v", status, answer)
		}
	}()
	eventually(g.t, "the log goes on", func() bool {
		status, answer = ask(g.t, method, g.Addresses().API+path, g.root, body)
		return status == http.StatusCreated || status == http.StatusConflict
	})
}

// eventuallyToken makes a token and returns its secret. Each stream of the log
// elects its leader by itself, so the account may exist while the ledger cannot
// read its login yet.
func (g *going) eventuallyToken(account string, scopes ...string) (secret string) {
	g.t.Helper()
	var status int
	var answer m
	defer func() {
		if secret == "" {
			g.t.Logf("the last answer is %d: %v", status, answer)
		}
	}()
	eventually(g.t, "a token is made", func() bool {
		status, answer = ask(g.t, http.MethodPost, g.Addresses().API+"/v1/tokens", g.root, m{"account": account, "scopes": scopes})
		secret, _ = answer["secret"].(string)
		return status == http.StatusCreated
	})
	return secret
}

// newThree makes credentials and configurations. It starts nothing.
func newThree(t *testing.T) *three {
	t.Helper()
	k := &three{t: t, configs: map[string]node.Config{}, nodes: map[string]*going{}}
	dir := t.TempDir()
	var requests []embedded.Request
	var routes []string
	for _, name := range threeNames {
		requests = append(requests, embedded.Request{Name: name, Role: embedded.RoleLedger, Hosts: []string{"127.0.0.1"}})
		routes = append(routes, addrtest.Free(t))
	}
	requests = append(requests, embedded.Request{Name: "v1", Role: embedded.RoleVerifier})
	if _, err := embedded.Issue(dir, requests); err != nil {
		t.Fatal(err)
	}
	creds := func(name string) string { return filepath.Join(dir, "nodes", name) }
	var clients []string
	for i, name := range threeNames {
		client := addrtest.Free(t)
		clients = append(clients, "tls://"+client)
		k.configs[name] = node.Config{
			Data: t.TempDir(), Roles: []string{node.RoleLedger},
			NATSCluster: routes, NATSClusterListen: routes[i], NATSListen: client, NATSCredentials: creds(name),
		}
	}
	k.configs["v1"] = node.Config{
		Data: t.TempDir(), Roles: []string{node.RoleVerifier}, NATS: strings.Join(clients, ","), NATSCredentials: creds("v1"),
	}
	return k
}

// going is a node that has been started and need not be ready.
type going struct {
	*running
	done chan error
}

// begin starts a node without waiting until it is ready.
func (k *three) begin(name string) *going {
	k.t.Helper()
	cfg := k.configs[name]
	cfg.APIAddr, cfg.VerifyAddr, cfg.MetricsAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(k.t.Output(), nil)).With("node", name)
	}
	n, err := node.New(cfg)
	if err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &going{running: &running{Node: n, t: k.t, dir: cfg.Data}, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.done <- n.Run(ctx)
	}()
	g.stop = func() {
		cancel()
		<-ended
	}
	k.t.Cleanup(g.stop)
	k.nodes[name] = g
	return g
}

// ready waits until a node is.
func (g *going) ready() *going {
	g.t.Helper()
	late := time.After(patience)
	select {
	case <-g.Ready():
	case err := <-g.done:
		g.done <- err
		g.t.Fatalf("node ended early: %v", err)
	case <-late:
		g.t.Fatalf("node is not ready after %s", patience)
	}
	if raw, err := os.ReadFile(g.file("root.token")); err == nil {
		g.root = strings.TrimSpace(string(raw))
	}
	return g
}

// start starts the nodes together and waits until they are ready.
func (k *three) start(names ...string) {
	k.t.Helper()
	for _, name := range names {
		k.begin(name)
	}
	for _, name := range names {
		k.nodes[name].ready()
	}
}

func TestThreeLedgers(t *testing.T) {
	k := newThree(t)
	began := time.Now()
	k.start(threeNames...)
	t.Logf("three ledgers were ready after %s", time.Since(began))
	var roots []string
	for _, name := range threeNames {
		if root := k.nodes[name].root; root != "" {
			roots = append(roots, fmt.Sprint(name, root))
		}
	}
	if len(roots) != 1 {
		t.Fatalf("%d ledgers have a first token, want one", len(roots))
	}
	k.start("v1")
	eventually(t, "the verifier has the log", func() bool { return k.nodes["v1"].reason(k.nodes["l1"].root, "superuser") == "allowed" })
}

// lost makes the disks of ledgers new.
func (k *three) lost(names ...string) {
	k.t.Helper()
	for _, name := range names {
		entries, err := os.ReadDir(k.configs[name].Data)
		if err != nil {
			k.t.Fatal(err)
		}
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(k.configs[name].Data, e.Name())); err != nil {
				k.t.Fatal(err)
			}
		}
	}
}

func (k *three) stop(names ...string) {
	for _, name := range names {
		k.nodes[name].stop()
	}
}

// refuses waits until a node has ended, and returns why.
func (g *going) refuses() error {
	g.t.Helper()
	select {
	case err := <-g.done:
		g.done <- err
		return err
	case <-time.After(patience):
		g.t.Fatalf("the node goes on for %s", patience)
		return nil
	}
}

// blocks returns the files that hold a ledger's copy of the log: name -> size.
func (k *three) blocks(name string) map[string]int64 {
	k.t.Helper()
	files, err := filepath.Glob(filepath.Join(k.configs[name].Data, "log", "jetstream", "LEDGER", "streams", "LEDGER", "msgs", "*.blk"))
	if err != nil {
		k.t.Fatal(err)
	}
	sizes := map[string]int64{}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			k.t.Fatal(err)
		}
		sizes[f] = info.Size()
	}
	return sizes
}

// TestOneLedgerOfThree kills one, and replaces the disk of another.
func TestOneLedgerOfThree(t *testing.T) {
	k := newThree(t)
	k.start(threeNames...)
	root := k.nodes["l1"].root
	k.stop("l3")
	// A stream that has lost its leader pauses; commands wait for the next one.
	k.nodes["l2"].root = root
	k.nodes["l2"].eventually("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	secret := k.nodes["l2"].eventuallyToken("alice", "view:site/1")
	position := k.nodes["l2"].Position()
	k.start("l3")
	eventually(t, "the one that was away has the log", func() bool { return k.nodes["l3"].Position() >= position })

	k.stop("l1")
	k.lost("l1")
	k.start("l1")
	eventually(t, "the one with a new disk has the log", func() bool { return k.nodes["l1"].Position() >= position })
	if k.nodes["l1"].root != "" {
		t.Error("a ledger with a new disk has made a first token")
	}
	k.start("v1")
	eventually(t, "the token works", func() bool { return k.nodes["v1"].reason(secret, "view:site/1") == "allowed" })
	if got := k.nodes["v1"].reason(root, "superuser"); got != "allowed" {
		t.Errorf("the first token: %s", got)
	}
	// The new copy counts: without another one the log goes on.
	k.stop("l2")
	k.nodes["l1"].root = root
	k.nodes["l1"].eventually("POST", "/v1/tokens", m{"account": "alice", "scopes": []string{"view:site/2"}})
}

// TestOneMissingAtBirth starts two of three on new disks: nobody begins. With the
// third one they do, and the one whose name is first goes on after a crash.
func TestOneMissingAtBirth(t *testing.T) {
	k := newThree(t)
	var out logText
	for name, cfg := range k.configs {
		cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
		k.configs[name] = cfg
	}
	k.begin("l1")
	k.begin("l2")
	eventually(t, "it is said who is missing", func() bool { return strings.Contains(out.String(), "missing=l3") })
	for _, name := range []string{"l1", "l2"} {
		if files := k.blocks(name); len(files) > 0 {
			t.Errorf("%s has begun a log: %v", name, files)
		}
		for _, file := range []string{"ledger.json", "root.token", "log/jetstream/$SYS"} {
			if _, err := os.Stat(k.nodes[name].file(file)); !os.IsNotExist(err) {
				t.Errorf("%s has %s: %v", name, file, err)
			}
		}
	}
	// A crash after it was noted that the log is being begun, and before it was.
	k.stop("l1")
	if err := os.WriteFile(k.nodes["l1"].file("ledger.json"), []byte(`{"epoch":"01m80dqgnr93z30nnw25ynwdh0","beginning":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start("l3", "l1")
	k.nodes["l2"].ready()
	for _, name := range threeNames {
		raw, err := os.ReadFile(k.nodes[name].file("ledger.json"))
		if err != nil || strings.TrimSpace(string(raw)) != `{"epoch":"01m80dqgnr93z30nnw25ynwdh0"}` {
			t.Errorf("%s notes %s, %v", name, raw, err)
		}
		if root := k.nodes[name].root; (root != "") != (name == "l1") {
			t.Errorf("%s has a first token: %v", name, root != "")
		}
	}
}

// TestBirthGoesOn crashes the ledger that begins the log after it is there, and
// before the first token is.
func TestBirthGoesOn(t *testing.T) {
	k := newThree(t)
	k.start(threeNames...)
	root := k.nodes["l1"].root
	k.stop(threeNames...)
	raw, err := os.ReadFile(k.nodes["l1"].file("ledger.json"))
	if err == nil {
		err = os.WriteFile(k.nodes["l1"].file("ledger.json"), []byte(strings.TrimSuffix(strings.TrimSpace(string(raw)), "}")+`,"beginning":true}`), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	k.start(threeNames...)
	if k.nodes["l1"].root != root || k.nodes["l2"].root != "" || k.nodes["l3"].root != "" {
		t.Error("there is another first token")
	}
	k.nodes["l1"].eventually("POST", "/v1/tokens", m{"account": "root", "scopes": []string{"audit"}}) // the first token works, and its command came once
}

// TestMajorityLost makes the disks of two ledgers new: nobody begins anew, nor
// takes the third one's copy for the truth, and that copy stays.
func TestMajorityLost(t *testing.T) {
	k := newThree(t)
	k.start(threeNames...)
	k.nodes["l1"].eventually("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	k.stop(threeNames...)
	before := k.blocks("l2")
	k.lost("l1", "l3")
	for _, name := range threeNames {
		k.begin(name)
	}
	for _, name := range []string{"l1", "l3"} {
		err := k.nodes[name].refuses()
		if !errors.Is(err, genesis.ErrLogGone) || !strings.Contains(err.Error(), "only l2 has a copy") || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%s: %v, want ErrLogGone that says who has a copy and what to do", name, err)
		}
	}
	k.stop("l2")
	if after := k.blocks("l2"); len(before) == 0 || !maps.Equal(after, before) {
		t.Errorf("the copy that is left is %v, and was %v", after, before)
	}
	for _, name := range []string{"l1", "l3"} {
		if after := k.blocks(name); len(after) > 0 {
			t.Errorf("%s has made a copy: %v", name, after)
		}
	}
}

// TestAllLost makes all disks new but for the notes.
func TestAllLost(t *testing.T) {
	k := newThree(t)
	k.start(threeNames...)
	k.stop(threeNames...)
	for _, name := range threeNames {
		for _, dir := range []string{"log", "index"} {
			if err := os.RemoveAll(filepath.Join(k.configs[name].Data, dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	k.lost("l1") // the one that would begin
	for _, name := range threeNames {
		k.begin(name)
	}
	for _, name := range threeNames {
		if err := k.nodes[name].refuses(); !errors.Is(err, genesis.ErrLogGone) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%s: %v, want ErrLogGone", name, err)
		}
		if _, err := os.Stat(k.nodes[name].file("log/jetstream/$SYS")); !os.IsNotExist(err) {
			t.Errorf("%s has opened its empty store: %v", name, err)
		}
	}
}

// TestServersOfOnesOwn runs three ledgers on a log that other processes keep.
func TestServersOfOnesOwn(t *testing.T) {
	k := newThree(t)
	for _, name := range threeNames {
		cfg := k.configs[name]
		creds, err := embedded.LoadCredentials(cfg.NATSCredentials)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s, err := embedded.Start(ctx, embedded.Config{
			Dir: t.TempDir(), Listen: cfg.NATSListen, Credentials: creds, Cluster: &embedded.Cluster{Listen: cfg.NATSClusterListen, Routes: cfg.NATSCluster},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		})
		k.configs[name] = node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATS: k.configs["v1"].NATS, NATSCredentials: cfg.NATSCredentials}
	}
	k.start(threeNames...)
	roots := 0
	for _, name := range threeNames {
		if k.nodes[name].root != "" {
			roots++
		}
	}
	if roots != 1 || k.nodes["l1"].root == "" {
		t.Fatalf("%d ledgers have a first token, want the first one alone", roots)
	}
	k.start("v1")
	eventually(t, "the verifier has the log", func() bool { return k.nodes["v1"].reason(k.nodes["l1"].root, "superuser") == "allowed" })
	// A ledger alone has no say: nothing was begun in this one's folder, and the
	// log is there.
	k.stop("l2")
	k.lost("l2")
	k.start("l2")
	if k.nodes["l2"].root != "" {
		t.Error("a ledger with a new folder has made a first token")
	}
}

// TestOtherLease starts a ledger with a lease that is not the log's.
func TestOtherLease(t *testing.T) {
	cfg := node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, Lease: 7 * time.Second}
	start(t, cfg).stop()
	cfg.Lease = 6 * time.Second
	if err := fails(t, cfg); !errors.Is(err, embedded.ErrOtherLease) || !strings.Contains(err.Error(), "--lease 7s") {
		t.Errorf("Run = %v, want ErrOtherLease that names 7s", err)
	}
	cfg.Lease = 7 * time.Second
	start(t, cfg)
}

// TestMemberAdded adds a verifier while the ledgers run.
func TestMemberAdded(t *testing.T) {
	k := newThree(t)
	k.start(threeNames...)
	dir := filepath.Dir(filepath.Dir(k.configs["v1"].NATSCredentials))
	if _, err := embedded.Issue(dir, []embedded.Request{{Name: "v2", Role: embedded.RoleVerifier}}); err != nil {
		t.Fatal(err)
	}
	k.configs["v2"] = node.Config{
		Data: t.TempDir(), Roles: []string{node.RoleVerifier}, NATS: k.configs["v1"].NATS, NATSCredentials: filepath.Join(dir, "nodes", "v2"),
	}
	k.start("v2")
	eventually(t, "the new verifier answers", func() bool { return k.nodes["v2"].reason(k.nodes["l1"].root, "superuser") == "allowed" })
	if got := k.nodes["v2"].Addresses().Name; got != "v2" {
		t.Errorf("it is called %s", got)
	}
}

// TestCredentialsAreChecked starts nodes with those of others.
func TestCredentialsAreChecked(t *testing.T) {
	k := newThree(t)
	for name, tt := range map[string]struct {
		edit func(*node.Config)
		want string
	}{
		"a verifier's": {func(c *node.Config) { c.NATSCredentials = k.configs["v1"].NATSCredentials }, "those of a verifier, and this node is a ledger"},
		"another name": {func(c *node.Config) { c.Name = "other" }, "leave --name out"},
		"no folder":    {func(c *node.Config) { c.NATSCredentials = t.TempDir() }, "nats init"},
		"fewer ledgers than URLs": {func(c *node.Config) {
			c.NATSCluster = append(slices.Clone(c.NATSCluster), "nats://127.0.0.1:1", "nats://127.0.0.1:2")
		}, "l1, l2, l3"},
	} {
		cfg := k.configs["l1"]
		tt.edit(&cfg)
		if _, err := node.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestValidateLog names what is wrong with where the log is kept.
func TestValidateLog(t *testing.T) {
	three := []string{"nats://a:1", "nats://b:1", "nats://c:1"}
	verifier := []string{node.RoleVerifier}
	good := node.Config{Data: "d", NATSCluster: three, NATSClusterListen: "a:1", NATSCredentials: "c"}
	with := func(edit func(*node.Config)) node.Config {
		c := good
		edit(&c)
		return c
	}
	for name, tt := range map[string]struct {
		cfg  node.Config
		want []string
	}{
		"a cluster":                 {good, nil},
		"servers of one's own":      {node.Config{Data: "d", NATS: "tls://a:1", NATSCredentials: "c", NATSReplicas: 3}, nil},
		"a verifier":                {node.Config{Data: "d", Roles: verifier, NATS: "tls://a:1", NATSCredentials: "c"}, nil},
		"one ledger with TLS":       {node.Config{Data: "d", NATSListen: "a:1", NATSCredentials: "c"}, nil},
		"nothing beside the URLs":   {node.Config{Data: "d", NATSCluster: three}, []string{"nats-cluster-listen:", "nats-credentials:"}},
		"two URLs":                  {with(func(c *node.Config) { c.NATSCluster = three[:2] }), []string{"nats-cluster:", "three or five"}},
		"a verifier in a cluster":   {with(func(c *node.Config) { c.Roles = verifier }), []string{"nats-cluster: only ledgers"}},
		"a cluster and another":     {with(func(c *node.Config) { c.NATS = "tls://a:1" }), []string{"nats:"}},
		"a listener alone":          {node.Config{Data: "d", NATSClusterListen: "a:1"}, []string{"nats-cluster-listen:"}},
		"two keys":                  {node.Config{Data: "d", NATS: "tls://a:1", NATSCredentials: "c", NATSKey: "k"}, []string{"nats-key:"}},
		"a ledger without a key":    {node.Config{Data: "d", NATS: "tls://a:1"}, []string{"--nats-credentials"}},
		"replicas of a cluster":     {with(func(c *node.Config) { c.NATSReplicas = 3 }), []string{"nats-replicas:"}},
		"two replicas":              {node.Config{Data: "d", NATS: "tls://a:1", NATSKey: "k", NATSReplicas: 2}, []string{"nats-replicas:"}},
		"listens for another's log": {node.Config{Data: "d", NATS: "tls://a:1", NATSKey: "k", NATSListen: ":1"}, []string{"nats-listen:"}},
	} {
		err := tt.cfg.Validate()
		if (err == nil) != (len(tt.want) == 0) {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
}

// logText is a log that is read while it is written.
type logText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (h *logText) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.Write(b)
}

func (h *logText) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.String()
}

// TestDamagedCopyWaits damages the copy of one ledger while another one is
// down. The one that is left may have acknowledged something with the damaged
// copy alone, so that ledger takes no part before the third one has it too.
func TestDamagedCopyWaits(t *testing.T) {
	k := newThree(t)
	var out logText
	cfg := k.configs["l2"]
	cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	k.configs["l2"] = cfg
	k.start(threeNames...)
	k.stop("l3")
	k.nodes["l1"].eventually("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	secret := k.nodes["l1"].eventuallyToken("alice", "view:site/1")
	k.stop("l2")
	for block, size := range k.blocks("l2") {
		b, err := os.ReadFile(block)
		if err == nil {
			b[size/2] ^= 1
			err = os.WriteFile(block, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	k.begin("l2")
	eventually(t, "it is said what is waited for", func() bool {
		return strings.Contains(out.String(), "missing=l3")
	})
	if has, err := embedded.HasStore(k.nodes["l2"].file("log")); has || err != nil {
		t.Errorf("the ledger with the damaged copy has opened a store: %v, %v", has, err)
	}
	if kept, err := filepath.Glob(k.nodes["l2"].file("log/damaged-*/LEDGER/streams/LEDGER/msgs/*.blk")); err != nil || len(kept) == 0 {
		t.Errorf("the damaged copy is not in quarantine: %v", err)
	}
	if text := out.String(); !strings.Contains(text, "name=l2") || !strings.Contains(text, ".blk") {
		t.Errorf("it is not said whose copy is damaged, and where: %s", text)
	}
	k.start("l3")
	k.nodes["l2"].ready()
	k.start("v1")
	eventually(t, "the token works", func() bool { return k.nodes["v1"].reason(secret, "view:site/1") == "allowed" })
	// The new copy counts: without another one the log goes on.
	k.nodes["l2"].root = k.nodes["l1"].root
	k.stop("l1")
	k.nodes["l2"].eventually("POST", "/v1/tokens", m{"account": "alice", "scopes": []string{"view:site/2"}})
}

// TestTwoDamagedCopies: what is left of three copies is not taken for the truth.
func TestTwoDamagedCopies(t *testing.T) {
	k := newThree(t)
	k.start(threeNames...)
	k.nodes["l1"].eventually("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	k.stop(threeNames...)
	for _, name := range []string{"l1", "l3"} {
		for block := range k.blocks(name) {
			if err := os.Truncate(block, 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := k.blocks("l2")
	for _, name := range threeNames {
		k.begin(name)
	}
	for _, name := range []string{"l1", "l3"} {
		if err := k.nodes[name].refuses(); !errors.Is(err, genesis.ErrLogGone) || !strings.Contains(err.Error(), "only l2 has a copy") {
			t.Errorf("%s: %v, want ErrLogGone that says who has a copy", name, err)
		}
		if kept, err := filepath.Glob(k.nodes[name].file("log/damaged-*/LEDGER/streams/LEDGER/msgs/*.blk")); err != nil || len(kept) == 0 {
			t.Errorf("%s keeps nothing in quarantine: %v", name, err)
		}
	}
	k.stop("l2")
	if after := k.blocks("l2"); len(before) == 0 || !maps.Equal(after, before) {
		t.Errorf("the copy that is left is %v, and was %v", after, before)
	}
}
