import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from persona_probe.linear.fit import KINDS
from persona_probe.probes.linear_probe import LinearProbe


@pytest.mark.filterwarnings("ignore:.*:sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([LinearProbe(kind) for kind in KINDS])
def test_is_an_estimator_as_scikit_learn_wants_them(estimator, check):
    check(estimator)
