package main

import (
	"strings"
	"testing"
)

// TestRecoverRootRunbook makes root unusable and runs the commands of the
// runbook.
func TestRecoverRootRunbook(t *testing.T) {
	blocks := docBlocks(t, "../../ops/runbooks/recover-root.md", "TestRecoverRootRunbook")
	const begin = `
umask 077
tokenledger serve &
until tokenledger nodes > /dev/null 2>&1; do sleep 0.1; done
tokenledger account create bob --kind user --grant superuser > /dev/null
tokenledger token create --account bob --scope superuser --allow-admin --secret-only > bob.secret
cp "$TOKENLEDGER_DATA/root.token" first.secret
tokenledger account suspend root --token-file bob.secret > /dev/null
bob=$(tokenledger token list --account bob --token-file bob.secret -o jsonl | grep -o 'tok_[0-9a-z]*' | head -1)
tokenledger token revoke "$bob" --token-file bob.secret > /dev/null
tokenledger nodes 2> /dev/null && exit 1
kill $! && wait $!
echo LOST
`
	const end = `
echo AFTER
tokenledger verify --need superuser < first.secret || echo "exit code $?"
tokenledger verify --need superuser < "$TOKENLEDGER_DATA/root.token"
test -s invitation
`
	out := runDoc(t, begin+blocks[0]+end)
	_, out, _ = strings.Cut(out, "LOST\n")
	during, after, ok := strings.Cut(out, "AFTER\n")
	if !ok || strings.Count(during, `"recovered on `) != 1 || strings.Count(during, `"login":"root-2"`) == 0 || strings.Count(during, `"login":"bob"`) == 0 {
		t.Errorf("the new token or the superusers are not shown:\n%s", during)
	}
	if !strings.Contains(after, "exit code 7\n") || !strings.Contains(squeeze(after), "allowed yes") {
		t.Errorf("the first token's check, and the recovered one's:\n%s", after)
	}
}
