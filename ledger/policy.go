package ledger

import (
	"context"
	"fmt"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// PolicyResult is the result of a command on the policy.
type PolicyResult struct {
	Policy   events.PolicyState
	Position events.Position
	Replayed bool
}

// Policy returns the policy in force.
func (l *Ledger) Policy(c authz.Principal) (events.PolicyState, error) {
	if err := l.authz.Authorize(c, authz.SeePolicy, authz.Target{}); err != nil {
		return events.PolicyState{}, err
	}
	return l.policy()
}

// SetPolicy replaces the policy. Restrictions apply to existing tokens and sessions
// from the next check on. Maximum lifetimes of tokens apply only to tokens that are
// created or extended later.
func (l *Ledger) SetPolicy(
	ctx context.Context,
	c authz.Principal,
	key string,
	seen Precondition,
	p events.Policy,
) (PolicyResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (PolicyResult, error) { return l.setPolicy(ctx, c, key, &seen, p) })
}

func (l *Ledger) setPolicy(
	ctx context.Context,
	c authz.Principal,
	key string,
	seen *Precondition,
	p events.Policy,
) (PolicyResult, error) {
	if err := l.authz.Authorize(c, authz.SetPolicy, authz.Target{}); err != nil {
		return PolicyResult{}, err
	}
	if p.LegacyUntil.Year() > lastYear {
		return PolicyResult{}, errdefs.Invalid("legacy_until", "is after the year %d", lastYear)
	}
	change := &events.PolicySet{Policy: p}
	if err := checkChange(change); err != nil {
		return PolicyResult{}, err
	}
	out, err := l.writer.Run(ctx, commit.Command{
		Name: "set", By: c, Key: key, Request: []any{"set policy", p},
		Noun: events.NounPolicy, About: events.PolicyName,
		Decide: l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			if err := l.authz.Authorize(c, authz.SetPolicy, authz.Target{}); err != nil {
				return nil, err
			}
			now, err := l.policy()
			if err != nil {
				return nil, err
			}
			if *seen == 0 {
				*seen = now.Version
			}
			if now.Version != *seen {
				return nil, &ConflictError{About: events.PolicyName, Current: now.Version}
			}
			if now.Policy == p {
				return nil, nil
			}
			return change, nil
		}),
	})
	if err != nil {
		return PolicyResult{}, fmt.Errorf("set the policy: %w", err)
	}
	now, err := l.policy()
	if err != nil {
		return PolicyResult{}, fmt.Errorf("set the policy: %w", err)
	}
	got := PolicyResult{Policy: now, Position: out.Position, Replayed: out.Replayed}
	return got, nil
}
