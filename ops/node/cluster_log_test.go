package node_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/node"
)

// threeLedgers is a fixture of three ledgers that keep one log, and a verifier.
type threeLedgers struct {
	t       *testing.T
	configs map[string]node.Config // name -> configuration
	nodes   map[string]*launched
}

// ledgerNames are sorted: the first one creates the log.
var ledgerNames = []string{"l1", "l2", "l3"}

// eventually repeats a request until it succeeds: without a leader of the log it
// fails. A conflict means that an earlier try created the object.
func (g *launched) eventually(method, path string, body any) {
	g.t.Helper()
	var status int
	var answer m
	defer func() {
		if status != http.StatusCreated && status != http.StatusConflict {
			g.t.Logf("last answer: %d %v", status, answer)
		}
	}()
	eventually(g.t, "the log accepts commands", func() bool {
		status, answer = ask(g.t, method, g.Addresses().API+path, g.root, body)
		return status == http.StatusCreated || status == http.StatusConflict
	})
}

// eventuallyToken creates a token and returns its secret. Each stream of the log
// elects its own leader, so the account may exist before the ledger can read its
// login.
func (g *launched) eventuallyToken(account string, scopes ...string) (secret string) {
	g.t.Helper()
	var status int
	var answer m
	defer func() {
		if secret == "" {
			g.t.Logf("last answer: %d %v", status, answer)
		}
	}()
	eventually(g.t, "a token is created", func() bool {
		status, answer = ask(g.t, http.MethodPost, g.Addresses().API+"/v1/tokens", g.root, m{"account": account, "scopes": scopes})
		secret, _ = answer["secret"].(string)
		return status == http.StatusCreated
	})
	return secret
}

// newThreeLedgers creates credentials and configurations. It starts nothing.
func newThreeLedgers(t *testing.T) *threeLedgers {
	t.Helper()
	k := &threeLedgers{t: t, configs: map[string]node.Config{}, nodes: map[string]*launched{}}
	dir := t.TempDir()
	var requests []embedded.Request
	var routes []string
	for _, name := range ledgerNames {
		requests = append(requests, embedded.Request{Name: name, Role: embedded.RoleLedger, Hosts: []string{"127.0.0.1"}})
		routes = append(routes, addrtest.Free(t))
	}
	requests = append(requests, embedded.Request{Name: "v1", Role: embedded.RoleVerifier})
	if _, err := embedded.Issue(dir, requests); err != nil {
		t.Fatal(err)
	}
	creds := func(name string) string { return filepath.Join(dir, "nodes", name) }
	var clients []string
	for i, name := range ledgerNames {
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

// launched is a node that was started and may not be ready.
type launched struct {
	*testNode
	done chan error
}

// launch starts a node without waiting until it is ready.
func (k *threeLedgers) launch(name string) *launched {
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
	g := &launched{testNode: &testNode{Node: n, t: k.t, dir: cfg.Data}, done: make(chan error, 1)}
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

// waitReady waits until the node is ready.
func (g *launched) waitReady() *launched {
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

// start starts nodes together and waits until they are ready.
func (k *threeLedgers) start(names ...string) {
	k.t.Helper()
	for _, name := range names {
		k.launch(name)
	}
	for _, name := range names {
		k.nodes[name].waitReady()
	}
}

// TestThreeLedgers starts three ledgers and a verifier, and adds another verifier
// while they run.
func TestThreeLedgers(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	k.start(ledgerNames...)
	var roots []string
	for _, name := range ledgerNames {
		if k.nodes[name].root != "" {
			roots = append(roots, name)
		}
	}
	if len(roots) != 1 {
		t.Fatalf("ledgers %v have a first token, want one of them", roots)
	}
	root := k.nodes[roots[0]].root
	k.start("v1")
	eventually(t, "the verifier accepts the first token", func() bool { return k.nodes["v1"].reason(root, "superuser") == "allowed" })

	dir := filepath.Dir(filepath.Dir(k.configs["v1"].NATSCredentials))
	if _, err := embedded.Issue(dir, []embedded.Request{{Name: "v2", Role: embedded.RoleVerifier}}); err != nil {
		t.Fatal(err)
	}
	k.configs["v2"] = node.Config{
		Data: t.TempDir(), Roles: []string{node.RoleVerifier}, NATS: k.configs["v1"].NATS, NATSCredentials: filepath.Join(dir, "nodes", "v2"),
	}
	k.start("v2")
	eventually(t, "the new verifier accepts the first token", func() bool { return k.nodes["v2"].reason(root, "superuser") == "allowed" })
	if got := k.nodes["v2"].Addresses().Name; got != "v2" {
		t.Errorf("the new verifier is called %s", got)
	}
}

// wipe empties the data folders of ledgers.
func (k *threeLedgers) wipe(names ...string) {
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

func (k *threeLedgers) stop(names ...string) {
	for _, name := range names {
		k.nodes[name].stop()
	}
}

// waitError waits until the node ends, and returns its error.
func (g *launched) waitError() error {
	g.t.Helper()
	select {
	case err := <-g.done:
		g.done <- err
		return err
	case <-time.After(patience):
		g.t.Fatalf("the node still runs after %s", patience)
		return nil
	}
}

// blocks returns the files of a ledger's copy of the log: name -> size.
func (k *threeLedgers) blocks(name string) map[string]int64 {
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

// TestOneLedgerOfThree stops one ledger, and wipes the disk of another.
func TestOneLedgerOfThree(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	k.start(ledgerNames...)
	root := k.nodes["l1"].root
	k.stop("l3")
	// Commands wait until the log has a new leader.
	k.nodes["l2"].root = root
	k.nodes["l2"].eventually("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	secret := k.nodes["l2"].eventuallyToken("alice", "view:site/1")
	position := k.nodes["l2"].Position()
	k.start("l3")
	eventually(t, "the restarted ledger has the log", func() bool { return k.nodes["l3"].Position() >= position })

	k.stop("l1")
	k.wipe("l1")
	k.start("l1")
	eventually(t, "the wiped ledger has the log", func() bool { return k.nodes["l1"].Position() >= position })
	if k.nodes["l1"].root != "" {
		t.Error("a wiped ledger has created a first token")
	}
	k.start("v1")
	eventually(t, "the token works", func() bool { return k.nodes["v1"].reason(secret, "view:site/1") == "allowed" })
	if got := k.nodes["v1"].reason(root, "superuser"); got != "allowed" {
		t.Errorf("the first token: %s", got)
	}
	// The new copy counts: the log works without another one.
	k.stop("l2")
	k.nodes["l1"].root = root
	k.nodes["l1"].eventually("POST", "/v1/tokens", m{"account": "alice", "scopes": []string{"view:site/2"}})
}

// TestOneMissingAtCreation starts two of three new ledgers: they create no log.
// Once the third one is there, the first ledger creates the log, also after a
// crash.
func TestOneMissingAtCreation(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	var out logBuffer
	for name, cfg := range k.configs {
		cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
		k.configs[name] = cfg
	}
	k.launch("l1")
	k.launch("l2")
	eventually(t, "a log line names the missing ledger", func() bool { return strings.Contains(out.String(), "missing=l3") })
	for _, name := range []string{"l1", "l2"} {
		if files := k.blocks(name); len(files) > 0 {
			t.Errorf("%s has created a log: %v", name, files)
		}
		for _, file := range []string{"ledger.json", "root.token", "log/jetstream/$SYS"} {
			if _, err := os.Stat(k.nodes[name].file(file)); !os.IsNotExist(err) {
				t.Errorf("%s has %s: %v", name, file, err)
			}
		}
	}
	// A crash after the note that the log is being created, and before its creation.
	k.stop("l1")
	if err := os.WriteFile(k.nodes["l1"].file("ledger.json"), []byte(`{"epoch":"01m80dqgnr93z30nnw25ynwdh0","beginning":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start("l3", "l1")
	k.nodes["l2"].waitReady()
	for _, name := range ledgerNames {
		raw, err := os.ReadFile(k.nodes[name].file("ledger.json"))
		if err != nil || strings.TrimSpace(string(raw)) != `{"epoch":"01m80dqgnr93z30nnw25ynwdh0"}` {
			t.Errorf("%s notes %s, %v", name, raw, err)
		}
		if root := k.nodes[name].root; (root != "") != (name == "l1") {
			t.Errorf("%s has a first token: %v", name, root != "")
		}
	}
}

// TestCreationResumes crashes the ledger that creates the log, after the log exists
// and before the first token does.
func TestCreationResumes(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	k.start(ledgerNames...)
	root := k.nodes["l1"].root
	k.stop(ledgerNames...)
	raw, err := os.ReadFile(k.nodes["l1"].file("ledger.json"))
	if err == nil {
		err = os.WriteFile(k.nodes["l1"].file("ledger.json"), []byte(strings.TrimSuffix(strings.TrimSpace(string(raw)), "}")+`,"beginning":true}`), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	k.start(ledgerNames...)
	if k.nodes["l1"].root != root || k.nodes["l2"].root != "" || k.nodes["l3"].root != "" {
		t.Error("another first token was created")
	}
	k.nodes["l1"].eventually("POST", "/v1/tokens", m{"account": "root", "scopes": []string{"audit"}}) // the first token works, and exists once
}

// TestMajorityLost wipes the disks of two ledgers. No ledger creates a new log or
// trusts the copy of the third one, which stays as it is.
func TestMajorityLost(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	k.start(ledgerNames...)
	k.nodes["l1"].eventually("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	k.stop(ledgerNames...)
	before := k.blocks("l2")
	k.wipe("l1", "l3")
	for _, name := range ledgerNames {
		k.launch(name)
	}
	for _, name := range []string{"l1", "l3"} {
		err := k.nodes[name].waitError()
		if !errors.Is(err, genesis.ErrLogGone) || !strings.Contains(err.Error(), "only l2 has a copy") || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%s: %v, want ErrLogGone that names the ledger with a copy and says what to do", name, err)
		}
	}
	k.stop("l2")
	if after := k.blocks("l2"); len(before) == 0 || !maps.Equal(after, before) {
		t.Errorf("the remaining copy is %v, want %v", after, before)
	}
	for _, name := range []string{"l1", "l3"} {
		if after := k.blocks(name); len(after) > 0 {
			t.Errorf("%s has created a copy: %v", name, after)
		}
	}
}

// TestAllLost deletes all copies of the log. Two ledgers keep their notes.
func TestAllLost(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	k.start(ledgerNames...)
	k.stop(ledgerNames...)
	for _, name := range ledgerNames {
		for _, dir := range []string{"log", "index"} {
			if err := os.RemoveAll(filepath.Join(k.configs[name].Data, dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	k.wipe("l1") // the ledger that would create the log
	for _, name := range ledgerNames {
		k.launch(name)
	}
	for _, name := range ledgerNames {
		if err := k.nodes[name].waitError(); !errors.Is(err, genesis.ErrLogGone) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%s: %v, want ErrLogGone", name, err)
		}
		if _, err := os.Stat(k.nodes[name].file("log/jetstream/$SYS")); !os.IsNotExist(err) {
			t.Errorf("%s has opened its empty store: %v", name, err)
		}
	}
}

// TestExternalServers runs three ledgers on external log servers.
func TestExternalServers(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	for _, name := range ledgerNames {
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
	k.start(ledgerNames...)
	roots := 0
	for _, name := range ledgerNames {
		if k.nodes[name].root != "" {
			roots++
		}
	}
	if roots != 1 || k.nodes["l1"].root == "" {
		t.Fatalf("%d ledgers have a first token, want only l1", roots)
	}
	k.start("v1")
	eventually(t, "the verifier has the log", func() bool { return k.nodes["v1"].reason(k.nodes["l1"].root, "superuser") == "allowed" })
	// A wiped ledger finds the log and creates nothing.
	k.stop("l2")
	k.wipe("l2")
	k.start("l2")
	if k.nodes["l2"].root != "" {
		t.Error("a wiped ledger has created a first token")
	}
}

// TestOtherLease starts a ledger with another lease than the log's.
func TestOtherLease(t *testing.T) {
	t.Parallel()
	cfg := node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, Lease: 7 * time.Second}
	start(t, cfg).stop()
	cfg.Lease = 6 * time.Second
	if err := fails(t, cfg); !errors.Is(err, embedded.ErrOtherLease) || !strings.Contains(err.Error(), "--lease 7s") {
		t.Errorf("Run = %v, want ErrOtherLease that names 7s", err)
	}
	cfg.Lease = 7 * time.Second
	start(t, cfg)
}

// TestCredentialsAreChecked starts nodes with the credentials of other nodes.
func TestCredentialsAreChecked(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
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

// TestValidateLog checks the errors about the settings of the log.
func TestValidateLog(t *testing.T) {
	t.Parallel()
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

// TestDamagedCopyWaits damages the copy of one ledger while another ledger is
// down. The third ledger may have committed events with the damaged copy alone.
// So the ledger with the damaged copy waits until both others have those events.
func TestDamagedCopyWaits(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	var out logBuffer
	cfg := k.configs["l2"]
	cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	k.configs["l2"] = cfg
	k.start(ledgerNames...)
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
	k.launch("l2")
	eventually(t, "a log line names the missing ledger", func() bool {
		return strings.Contains(out.String(), "missing=l3")
	})
	if has, err := embedded.HasStore(k.nodes["l2"].file("log")); has || err != nil {
		t.Errorf("the ledger with the damaged copy has opened a store: %v, %v", has, err)
	}
	if kept, err := filepath.Glob(k.nodes["l2"].file("log/damaged-*/LEDGER/streams/LEDGER/msgs/*.blk")); err != nil || len(kept) == 0 {
		t.Errorf("the damaged copy is not in quarantine: %v", err)
	}
	if text := out.String(); !strings.Contains(text, "name=l2") || !strings.Contains(text, ".blk") {
		t.Errorf("no log line names the damaged ledger and file: %s", text)
	}
	k.start("l3")
	k.nodes["l2"].waitReady()
	k.start("v1")
	eventually(t, "the token works", func() bool { return k.nodes["v1"].reason(secret, "view:site/1") == "allowed" })
	// The new copy counts: the log works without another one.
	k.nodes["l2"].root = k.nodes["l1"].root
	k.stop("l1")
	k.nodes["l2"].eventually("POST", "/v1/tokens", m{"account": "alice", "scopes": []string{"view:site/2"}})
}

// TestTwoDamagedCopies: no ledger trusts the one copy that is left of three.
func TestTwoDamagedCopies(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	k.start(ledgerNames...)
	k.nodes["l1"].eventually("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	k.stop(ledgerNames...)
	for _, name := range []string{"l1", "l3"} {
		for block := range k.blocks(name) {
			if err := os.Truncate(block, 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := k.blocks("l2")
	for _, name := range ledgerNames {
		k.launch(name)
	}
	for _, name := range []string{"l1", "l3"} {
		if err := k.nodes[name].waitError(); !errors.Is(err, genesis.ErrLogGone) || !strings.Contains(err.Error(), "only l2 has a copy") {
			t.Errorf("%s: %v, want ErrLogGone that names the ledger with a copy", name, err)
		}
		if kept, err := filepath.Glob(k.nodes[name].file("log/damaged-*/LEDGER/streams/LEDGER/msgs/*.blk")); err != nil || len(kept) == 0 {
			t.Errorf("%s has nothing in quarantine: %v", name, err)
		}
	}
	k.stop("l2")
	if after := k.blocks("l2"); len(before) == 0 || !maps.Equal(after, before) {
		t.Errorf("the remaining copy is %v, want %v", after, before)
	}
}
