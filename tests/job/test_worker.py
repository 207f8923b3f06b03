import pytest

from alens.errors import RequestError
from alens.job.worker import Worker, parse_worker


def test_a_worker_as_job_scripts_give_it() -> None:
    assert parse_worker("2/8") == Worker(index=2, count=8)
    assert str(Worker(index=2, count=8)) == "2/8"


@pytest.mark.parametrize("text", ["", "1", "1/", "a/b", "-1/2", "1/2/3", " 1/2", "1.0/2"])
def test_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="not of the form I/N"):
        parse_worker(text)


@pytest.mark.parametrize("text", ["3/3", "0/0"])
def test_a_worker_beyond_the_count_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=f"worker {text} does not exist"):
        parse_worker(text)
