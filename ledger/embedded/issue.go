package embedded

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
)

var (
	// ErrIssued reports a name that has other credentials already.
	ErrIssued = errors.New("has credentials already")
	// ErrRequest reports a name, role or host that cannot be one.
	ErrRequest = errors.New("cannot be given credentials")
)

// validity is how long a certificate and the authority behind it last. What
// ends sooner ends unnoticed, and with it everybody's sign-ins; a key that leaked
// is put out of use by taking its member out of the list.
const validity = 10 * 365 * 24 * time.Hour

// Request asks for the credentials of one node.
type Request struct {
	Name  string
	Role  Role
	Hosts []string // names and addresses by which others reach it; required for a ledger
}

func (r Request) validate() error {
	var problems []error
	if err := events.CheckNodeName(r.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s %w: "+format, append([]any{r.Name, ErrRequest}, args...)...))
	}
	switch {
	case r.Role == RoleLedger && len(r.Hosts) == 0:
		bad("a ledger needs the hosts by which others reach it")
	case r.Role == RoleVerifier && len(r.Hosts) > 0:
		bad("nobody connects to a verifier: leave its hosts out")
	case r.Role != RoleLedger && r.Role != RoleVerifier:
		bad("its role is neither %s nor %s", RoleLedger, RoleVerifier)
	}
	for _, h := range r.Hosts {
		if net.ParseIP(h) == nil && !isHostname(h) {
			bad("%s is neither a host name nor an address; leave ports out", events.Quote(h))
		}
	}
	return errors.Join(problems...)
}

func isHostname(h string) bool {
	if len(h) == 0 || len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}

// Issue makes credentials for the nodes that are asked for, in the folder dir:
//
//	ca.crt, ca.key       the authority behind all certificates
//	members.json         who may connect
//	nats.conf            the configuration of servers of one's own
//	nodes/<name>/        what one node needs: node.nk, tls.crt, tls.key, ca.crt and members.json
//
// Where dir has credentials already, it adds to them: keys and certificates stay
// as they are, and members.json and nats.conf are written anew. What is there as
// it is asked for stays, too, so that asking twice is asking once. It returns all
// members, new ones last. Nothing is begun when a request is refused; ErrIssued is
// for a name that is there with another role or other hosts.
func Issue(dir string, requests []Request) (Members, error) {
	ms, err := issue(dir, requests)
	if err != nil {
		return nil, fmt.Errorf("make credentials: %w", err)
	}
	return ms, nil
}

func issue(dir string, requests []Request) (Members, error) {
	if len(requests) == 0 {
		return nil, errors.New("name at least one node")
	}
	members, err := LoadMembers(filepath.Join(dir, fileMembers))
	if errors.Is(err, fs.ErrNotExist) {
		// Files without the list are of a run that did not end, or not ours.
		for _, name := range []string{fileCA, fileCAKey, dirNodes, fileConf} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				return nil, fmt.Errorf("%s has %s and no %s: nothing there is overwritten; name another folder, or remove what an earlier run left", dir, name, fileMembers)
			}
		}
	} else if err != nil {
		return nil, err
	}
	var problems []error
	var missing []Request
	taken := map[string]bool{}
	for _, m := range members {
		taken[strings.ToLower(m.Name)] = true
	}
	for _, r := range requests {
		if err := r.validate(); err != nil {
			problems = append(problems, err)
			continue
		}
		if m, ok := members.Named(r.Name); ok && m.Role == r.Role && slices.Equal(m.Hosts, r.Hosts) {
			continue
		}
		missing = append(missing, r)
		// Names that differ in case alone share a folder on some systems.
		if taken[strings.ToLower(r.Name)] {
			problems = append(problems, fmt.Errorf("%s %w: to replace them, take the name out of %s and remove its folder", r.Name, ErrIssued, fileMembers))
		} else if _, err := os.Lstat(nodeDir(dir, r.Name)); err == nil {
			problems = append(problems, fmt.Errorf("%s is there, and %s does not name it: remove the folder first", nodeDir(dir, r.Name), fileMembers))
		}
		taken[strings.ToLower(r.Name)] = true
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}

	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := CheckFolder(dir); err != nil {
		return nil, err
	}
	var ca *authority
	switch {
	case members == nil:
		ca, err = newAuthority(dir)
	case len(missing) > 0:
		ca, err = loadAuthority(dir)
	}
	if err != nil {
		return nil, err
	}
	for _, r := range missing {
		m, err := ca.issue(dir, r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		members = append(members, m)
	}
	// The list comes last: a node that it names is whole.
	list, err := json.MarshalIndent(membersFile{members}, "", "  ")
	if err != nil {
		return nil, err
	}
	list = append(list, '\n')
	for _, m := range members {
		if err := replaceChanged(filepath.Join(nodeDir(dir, m.Name), fileMembers), list); err != nil {
			return nil, err
		}
	}
	if err := replaceChanged(filepath.Join(dir, fileConf), []byte(ServerConfig(members))); err != nil {
		return nil, err
	}
	return members, replaceChanged(filepath.Join(dir, fileMembers), list)
}

func nodeDir(dir, name string) string { return filepath.Join(dir, dirNodes, name) }

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	pem  []byte
	key  *ecdsa.PrivateKey
}

func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "tokenledger"},
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	a := &authority{key: key}
	if a.cert, a.pem, err = sign(template, nil, &key.PublicKey, key); err != nil {
		return nil, err
	}
	private, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	if err := disk.Create(filepath.Join(dir, fileCAKey), private); err != nil {
		return nil, err
	}
	return a, disk.Create(filepath.Join(dir, fileCA), a.pem)
}

func loadAuthority(dir string) (*authority, error) {
	path := filepath.Join(dir, fileCAKey)
	if err := closedToOthers(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: names are added where the authority's key is kept; bring it there", err)
		}
		return nil, err
	}
	private, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	a := &authority{}
	if a.pem, err = os.ReadFile(filepath.Join(dir, fileCA)); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(a.pem)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", fileCA)
	}
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("%s: %w", fileCA, err)
	}
	malformed := fmt.Errorf("%s is not the key of %s: restore it", fileCAKey, fileCA)
	if block, _ = pem.Decode(private); block == nil {
		return nil, malformed
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, malformed
	}
	var ok bool
	if a.key, ok = parsed.(*ecdsa.PrivateKey); !ok || !a.key.PublicKey.Equal(a.cert.PublicKey) {
		return nil, malformed
	}
	return a, nil
}

// issue writes the folder of one node.
func (a *authority) issue(dir string, r Request) (Member, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Member{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: r.Name, OrganizationalUnit: []string{string(r.Role)}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if r.Role == RoleLedger {
		// A verifier's certificate cannot pass for a server's.
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	hosts := r.Hosts
	if slices.ContainsFunc(hosts, func(h string) bool { return h == "localhost" || h == "127.0.0.1" }) {
		hosts = append(slices.Clone(hosts), "localhost", "127.0.0.1", "::1") // all of it is this machine
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	cert, certPEM, err := sign(template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return Member{}, err
	}
	private, err := keyPEM(key)
	if err != nil {
		return Member{}, err
	}
	node := nodeDir(dir, r.Name)
	if err := os.MkdirAll(node, 0o700); err != nil {
		return Member{}, err
	}
	nkey, err := LoadOrCreateKey(filepath.Join(node, fileKey))
	if err != nil {
		return Member{}, err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{fileCertKey, private}, {fileCert, certPEM}, {fileCA, a.pem}} {
		if err := disk.Create(filepath.Join(node, f.name), f.data); err != nil {
			return Member{}, err
		}
	}
	return Member{Name: r.Name, Role: r.Role, Key: nkey.Public(), Hosts: r.Hosts, Certificate: fingerprint(cert)}, nil
}

// sign makes a certificate, signed by itself where parent is nil.
func sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) (*x509.Certificate, []byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	// An hour for clocks that are behind this machine's.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.Add(validity)
	if parent == nil {
		parent = template
	} else if template.NotAfter.After(parent.NotAfter) {
		template.NotAfter = parent.NotAfter
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), err
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}

// replaceChanged writes a file unless it already has this content.
func replaceChanged(path string, data []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return disk.Replace(path, data)
}
